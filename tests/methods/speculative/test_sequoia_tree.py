"""Sequoia: the drafted tree has the planned shape, plans follow what was accepted, and its checks."""

import pytest

from harness.kinds.speculative.checks import _Checks
from harness.kinds.speculative.drafts import DraftModel
from methods.speculative.sequoia_tree import SequoiaTree


def opened_steps(method, subject, tokens=60):
    """Steps of one request, and the drafter behind them."""
    checks = _Checks(method, subject)
    with checks.opened() as drafting:
        row = drafting.generate(checks.request([checks.prompts[0]], tokens))[0]
        return row, drafting.decoder.drafter


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


@pytest.mark.parametrize("method", [SequoiaTree(draft="noised:0.1"), SequoiaTree(draft="noised:0.1", num_nodes=7)])
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()
