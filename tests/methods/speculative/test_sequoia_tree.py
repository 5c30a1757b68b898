"""Sequoia: the drafted tree has the planned shape, plans follow what was accepted, and its checks."""

import pytest

from harness.kinds.speculative.checks import _Checks
from harness.kinds.speculative.drafts import DraftModel
from harness.kinds.speculative.widths import WidthCosts
from methods.speculative.sequoia_tree import SequoiaTree, ShapedDrafter


def opened_steps(method, subject, tokens=60):
    """Steps of one request, and the drafter behind them."""
    checks = _Checks(method, subject)
    with checks.opened() as drafting:
        row = drafting.generate(checks.request([checks.prompts[0]], tokens))[0]
        return row, drafting.decoder.drafter


def size(shape):
    """Drafted nodes of a planned tree."""
    return sum(1 + size(child) for child in shape)


@pytest.fixture
def stated_price(monkeypatch):
    """Drafting a token costs a quarter of a plain step: what this machine measures must not decide what a test sees."""
    monkeypatch.setattr(DraftModel, "token_price", 0.25)


@pytest.mark.usefixtures("stated_price")
def test_a_good_draft_makes_the_plan_a_chain_and_a_bad_one_a_bush(tiny):
    good = opened_steps(SequoiaTree(draft="layers:2", num_nodes=4), tiny, 120)[1].shape
    bad = opened_steps(SequoiaTree(draft="noised:0.15", num_nodes=4), tiny, 120)[1].shape
    assert len(good) == 1 and len(bad) > 1


@pytest.mark.usefixtures("stated_price")
def test_a_draft_like_the_target_is_accepted_to_the_full_depth(tiny):
    row, _ = opened_steps(SequoiaTree(draft="layers:2", num_nodes=3), tiny, 200)
    assert row.steps[-3] == 4


@pytest.mark.usefixtures("stated_price")
@pytest.mark.parametrize(("step", "nodes"), [(0.0, 20), (0.9, 1)])
def test_the_first_plan_is_for_the_widths_of_this_machine(tiny, step, nodes):
    drafter = ShapedDrafter(DraftModel(tiny, tiny), range(2, 26), 6)
    drafter.costs = WidthCosts((1, 25), (1.0, 1.0 + 24 * step))
    drafter.start([1, 2], None, 0)
    assert size(drafter.shape) == nodes


@pytest.mark.parametrize("method", [SequoiaTree(draft="noised:0.1"), SequoiaTree(draft="noised:0.1", num_nodes=7)])
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()
