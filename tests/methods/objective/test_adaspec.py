"""AdaSPEC's selection: what is kept, what it weighs, and when it is plain distillation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.kinds.objective.distil import forward_kl, keep_tokens
from methods.objective.adaspec import AdaSpec
from methods.objective.distillspec import DistillSpec

SCORES = torch.tensor([0.1, 0.9, -0.3, 0.5, 0.2])


def test_the_largest_gaps_are_kept_and_weigh_alike():
    assert keep_tokens(SCORES, 0.4, "all").tolist() == pytest.approx([0, 0.2, 0, 0.2, 0])
    assert keep_tokens(SCORES, 0.4, "kept").tolist() == pytest.approx([0, 0.5, 0, 0.5, 0])


@given(st.integers(1, 40), st.floats(0.05, 1.0))
def test_the_share_is_rounded_up(count, share):
    scores = torch.arange(float(count))
    kept = int((keep_tokens(scores, share, "all") > 0).sum())
    assert kept - 1 < share * count + 1e-6 and kept >= share * count - 1e-6


def test_ties_are_all_kept():
    assert (keep_tokens(torch.zeros(7), 0.3, "kept") > 0).all()


def weights(method, loss, reference=None):
    return method.token_weights(torch.tensor(loss), None if reference is None else torch.tensor(reference), 0).tolist()


def test_a_worked_example_of_three_tokens():
    """Gaps 0.5, -0.1 and 0.9: two of three are kept at a share of 0.5."""
    loss, reference = [1.0, 0.4, 2.0], [0.5, 0.5, 1.1]
    assert weights(AdaSpec(keep_share=0.5), loss, reference) == pytest.approx([1 / 3, 0, 1 / 3])
    assert weights(AdaSpec(keep_share=0.5, select="bottom"), loss, reference) == pytest.approx([1 / 3, 1 / 3, 0])
    assert weights(AdaSpec(keep_share=0.5, normalize="kept"), loss, reference) == pytest.approx([0.5, 0, 0.5])


def test_keeping_all_tokens_is_plain_distillation():
    loss = [1.0, 0.4, 2.0]
    assert weights(AdaSpec(keep_share=1.0), loss) == pytest.approx(weights(DistillSpec(), loss))
    assert not AdaSpec(keep_share=1.0).needs_reference and AdaSpec().needs_reference


def test_a_reference_like_the_draft_keeps_all_tokens():
    loss = [1.0, 0.4, 2.0]
    assert weights(AdaSpec(), loss, loss) == pytest.approx(weights(DistillSpec(), loss))


def test_random_tokens_are_a_share_of_all_and_change_with_the_step():
    method, loss = AdaSpec(select="random", keep_share=0.5), torch.arange(40.0)
    first, second = (method.token_weights(loss, None, step) for step in (0, 1))
    assert (first > 0).sum() == (second > 0).sum() == 20 and not torch.equal(first, second)


def test_tokens_that_are_not_kept_have_no_gradient():
    logits = torch.randn(5, 9, requires_grad=True)
    loss = forward_kl(torch.randn(5, 9), logits)
    (keep_tokens(SCORES, 0.4, "all") * loss).sum().backward()
    assert logits.grad[[0, 2, 4]].abs().max() == 0 and (logits.grad[[1, 3]].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("method", [AdaSpec(), DistillSpec()], ids=["adaspec", "distillspec"])
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()
