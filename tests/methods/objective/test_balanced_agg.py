"""Balanced aggregation: the invariants (a) to (f) of its definition, a loop as oracle, and the kind's checks."""

from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.errors import Refused
from harness.kinds.checking import run_checks
from harness.kinds.objective.balance import balanced
from harness.kinds.objective.checks import loss_and_gradient, moved_logps, random_batch
from harness.kinds.objective.stages import aggregate


def made(text="balanced_agg"):
    return MethodSpec.parse(text).build()


def case(lengths, adv, groups=None, seed=0, width=None):
    """Losses, mask, advantages and groups of responses with these lengths."""
    width = width or max(lengths)
    loss = torch.randn(len(lengths), width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    group = torch.zeros(len(lengths), dtype=torch.long) if groups is None else torch.tensor(groups)
    return loss.requires_grad_(), mask, torch.tensor(adv, dtype=torch.float64), group


def oracle(loss, mask, adv, groups):
    """The definition, by loops."""
    total = 0.0
    names = sorted(set(groups.tolist()))
    for name in names:
        rows = [i for i in range(len(adv)) if groups[i] == name]
        for sign in (1, -1):
            chosen = [i for i in rows if adv[i] * sign > 0]
            tokens = [float(loss[i, t]) for i in chosen for t in range(loss.shape[1]) if mask[i, t]]
            total += len(chosen) / len(rows) * sum(tokens) / max(len(tokens), 1)
    return total / len(names)


def test_against_loops():
    loss, mask, adv, groups = case(
        [3, 1, 5, 2, 4, 4, 0, 2, 3], [1, -1, -1, 0, 0.5, -0.5, -0.5, 0, 0], [0, 0, 0, 0, 7, 7, 7, 3, 3]
    )
    found = balanced(loss, mask, adv, groups)
    assert float(found.detach()) == pytest.approx(oracle(loss.detach(), mask, adv, groups), abs=1e-12)


def test_a_equal_lengths_equal_seq_and_token():
    loss, mask, adv, groups = case([4] * 6, [1, 1, -0.5, -0.5, -0.5, -0.5])
    ours = balanced(loss, mask, adv, groups)
    (gradient,) = torch.autograd.grad(ours, loss)
    for mode in ("seq", "token"):
        theirs = aggregate(loss, mask, mode)
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
        torch.testing.assert_close(gradient, torch.autograd.grad(theirs, loss)[0], atol=1e-12, rtol=0)


def test_b_at_the_snapshot_binary_rewards_give_zero_for_any_lengths_and_token_does_not():
    batch = random_batch()
    logp = batch.old_logps_BT.clone().requires_grad_()
    loss, gradient = loss_and_gradient(made(), batch, logp)
    assert abs(float(loss)) < 1e-12 and gradient.any()
    token, _ = loss_and_gradient(MethodSpec.parse("grpo@aggregation=token").build(), batch, logp)
    adv, count = made().advantage(batch)[:, 0], batch.lengths_B
    assert float(token) == pytest.approx(float(-(adv * count).sum() / count.sum()), abs=1e-12)
    assert abs(float(token)) > 0.01


def test_c_longer_negatives_change_neither_value_nor_the_signs_weights():
    lengths, adv = [3, 2, 4, 1], [1.0, 1.0, -1.0, -1.0]
    loss, mask, advantages, groups = case(lengths, adv, width=8)
    repeated = loss.detach().clone()
    for row in (2, 3):
        repeated[row, : 2 * lengths[row]] = loss[row, : lengths[row]].detach().repeat(2)
    repeated.requires_grad_()
    longer = torch.arange(8)[None] < torch.tensor([3, 2, 8, 2])[:, None]

    def weights(values, real, mode):
        value = balanced(values, real, advantages, groups) if mode == "ba" else aggregate(values, real, mode)
        (gradient,) = torch.autograd.grad(value, values)
        return float(value), float(gradient[:2].sum() / gradient[2:].sum())

    assert weights(repeated, longer, "ba") == pytest.approx(weights(loss, mask, "ba"), abs=1e-12)
    before, after = weights(loss, mask, "token"), weights(repeated, longer, "token")
    assert abs(before[0] - after[0]) > 1e-3 and after[1] == pytest.approx(before[1] / 2)


def test_d_one_weight_for_every_token_of_a_sign():
    loss, mask, adv, groups = case([3, 1, 5, 2], [1, 1, -1, -1])
    (gradient,) = torch.autograd.grad(balanced(loss, mask, adv, groups), loss)
    for rows, weight in (([0, 1], 0.5 / 4), ([2, 3], 0.5 / 7)):
        torch.testing.assert_close(gradient[rows][mask[rows]], torch.full((int(mask[rows].sum()),), weight).double())
    assert not gradient[~mask].any()


def test_e_one_response_of_each_sign_is_seq():
    loss, mask, adv, groups = case([3, 7, 2, 5], [1, -1, 1, -1], [0, 0, 1, 1])
    torch.testing.assert_close(balanced(loss, mask, adv, groups), aggregate(loss, mask, "seq"), atol=1e-12, rtol=0)


def test_f_order_and_padding():
    loss, mask, adv, groups = case([3, 1, 5, 2, 4], [1, -1, -1, 0.5, -0.5], [0, 0, 0, 1, 1])
    ours = balanced(loss, mask, adv, groups)
    order = torch.tensor([4, 2, 0, 3, 1])
    torch.testing.assert_close(balanced(loss[order], mask[order], adv[order], groups[order]), ours)
    wide = torch.cat([loss, torch.full((5, 3), float("nan")).double()], 1)
    wider = torch.cat([mask, torch.zeros(5, 3, dtype=torch.bool)], 1)
    assert torch.equal(balanced(wide, wider, adv, groups), ours)


def test_advantage_zero_in_a_mixed_group_counts_in_its_size_only():
    loss, mask, adv, groups = case([2, 2, 2], [1, -1, 0])
    expected = (loss[0].mean() + loss[1].mean()) / 3
    torch.testing.assert_close(balanced(loss, mask, adv, groups), expected)


def test_empty_response_counts_in_its_sign():
    loss, mask, adv, groups = case([2, 0, 3, 3], [1, 1, -1, -1], width=3)
    expected = 0.5 * loss[0, :2].mean() + 0.5 * loss[2:].mean()
    torch.testing.assert_close(balanced(loss, mask, adv, groups), expected)
    batch = random_batch(sizes=(4,))
    empty = batch.response_mask_BT.clone()
    empty[batch.rewards_B.argmax()] = False
    batch = replace(batch, response_mask_BT=empty)
    rows = made().surrogate(moved_logps(batch), batch, made().advantage(batch))
    expected = oracle(rows, empty, made().advantage(batch)[:, 0], batch.group_ids_B)
    value, _ = loss_and_gradient(made(), batch, moved_logps(batch))
    assert float(value) == pytest.approx(expected, abs=1e-12)


def test_skip_zero_groups_rescales_only():
    batch = random_batch(sizes=(4, 5, 3))
    logp = moved_logps(batch)
    plain, skipped = (loss_and_gradient(made(f"balanced_agg@skip_zero_groups={s}"), batch, logp) for s in (False, True))
    torch.testing.assert_close(skipped[0], plain[0] * 3 / 2)
    torch.testing.assert_close(skipped[1], plain[1] * 3 / 2)
    zero = replace(batch, rewards_B=torch.zeros_like(batch.rewards_B))
    assert float(loss_and_gradient(made("balanced_agg@skip_zero_groups=true"), zero, logp)[0]) == 0


def test_token_advantages_of_both_signs_are_refused():
    batch = random_batch()
    adv = made().advantage(batch).clone()
    adv[0, ::2] *= -1
    with pytest.raises(Refused, match="both signs"):
        made().aggregate(torch.zeros_like(adv), batch, adv)


@pytest.mark.parametrize("spec", ["balanced_agg", "balanced_agg@skip_zero_groups=true"])
def test_checks(tiny, spec):
    results = run_checks(made(spec), tiny)
    assert len(results) == 8
    assert [f"{r.name}: {r.reason}" for r in results if not r.passed] == []
