"""The zoo's pruning methods against kvpress, which needs an environment of its own."""

import os

import pytest

from ci.peers import compare_kvpress, quality_kvpress
from harness.catalog.spec import MethodSpec
from harness.evaluate.quality import EvalOptions
from harness.kinds.stack import applied

PYTHON = os.environ.get("ZOO_KVPRESS_PYTHON", "")
SAME = [
    *("KnormPress", "SnapKVPress", "StreamingLLMPress", "TOVAPress", "ObservedAttentionPress"),
    "AdaKVPress(SnapKVPress)",
]


@pytest.fixture(scope="module")
def table():
    subject, rows = compare_kvpress.random_case()
    return compare_kvpress.compared(subject, rows, compare_kvpress.asked(PYTHON, subject, rows, 0.3, 8), 0.3, 8)


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="ZOO_KVPRESS_PYTHON names no interpreter (ci/peers/make_environment.sh)")
@pytest.mark.parametrize("press", SAME)
def test_the_same_slots_are_kept_and_the_next_token_has_the_same_logits(table, press):
    assert table[press].equal_sets == 1.0
    assert table[press].logprob_error < 1e-4


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="ZOO_KVPRESS_PYTHON names no interpreter (ci/peers/make_environment.sh)")
def test_pyramids_agree_in_scores_but_not_in_budgets(table):
    """kvpress counts the window outside the budget that falls, and rounds layer by layer."""
    row = table["PyramidKVPress"]
    assert row.slots[0] != row.slots[1] and sum(row.slots[0]) == 3 * 2 * 48


def test_a_line_of_the_quality_table_pairs_documents():
    ours = quality_kvpress.Side({"acc": [1.0, 0.0, 1.0, 1.0]}, 1000.0)
    theirs = quality_kvpress.Side({"acc": [1.0, 0.0, 0.0, 1.0]}, 2000.0)
    cells = quality_kvpress.line(ours, theirs, "acc").split(" | ")
    assert cells[:2] == ["0.7500", "0.5000"] and cells[3:] == ["3 of 4", "1000", "2000"]
    assert cells[2].startswith("+0.2500 [-")


def test_a_side_has_a_value_for_each_document_and_the_bytes_of_its_cache(tiny):
    options = EvalOptions(limit=2)
    full = quality_kvpress.measured(tiny, "zoo_kvc16_blind", options)
    with applied([MethodSpec("kv_knorm", {"keep_ratio": 0.5}).build()], tiny) as half:
        held = quality_kvpress.measured(half, "zoo_kvc16_blind", options)
    assert {name: len(values) for name, values in held.values.items()} == {"acc": 2, "choice_margin": 2}
    assert 0.49 < held.bytes / full.bytes <= 0.5


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="ZOO_KVPRESS_PYTHON names no interpreter (ci/peers/make_environment.sh)")
def test_equal_definitions_give_equal_quality_at_equal_bytes(tiny, monkeypatch):
    monkeypatch.setattr(quality_kvpress, "METRICS", {"zoo_kvc16_blind": ("acc", "choice_margin")})
    pair, options = compare_kvpress.pairs(8)["SnapKVPress"], EvalOptions(limit=2)
    for row in quality_kvpress.rows(tiny, [pair], 0.5, options):
        *_, same, ours, theirs = row.split(" | ")
        assert same == "2 of 2" and ours == theirs
