"""The zoo's pruning methods against kvpress, which needs an environment of its own."""

import os

import pytest

from ci.peers import compare_kvpress

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
