"""Temporal scheduling: what is kept and when, the bonus, the twins, and the kind's checks."""

import itertools
from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.errors import UsageError
from harness.kinds.checking import run_checks
from harness.kinds.objective.checks import loss_and_gradient, moved_logps, random_batch
from harness.kinds.objective.frozen import frozen_loss, frozen_stages
from methods.objective.temporal_schedule import without_lead


def made(text="temporal_schedule"):
    return MethodSpec.parse(text).build()


def kept(method, batch, progress):
    return frozen_stages(method, batch, progress).batch.response_mask_BT


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.5, 0.99])
def test_leading_tokens_are_dropped_and_one_is_always_kept(rho):
    mask = torch.arange(12)[None] < torch.tensor([0, 1, 2, 5, 10, 12])[:, None]
    for row, n in enumerate([0, 1, 2, 5, 10, 12]):
        dropped = max(min(int(rho * n), n - 1), 0)
        expected = [dropped <= t < n for t in range(12)]
        assert without_lead(mask, rho)[row].tolist() == expected


@pytest.mark.parametrize("criterion", ["tp", "forking", "entropy_adv"])
def test_rho_zero_is_grpo_over_tokens_with_this_clip(criterion):
    batch = random_batch()
    theirs = loss_and_gradient(made("grpo@aggregation=token@clip_high=0.28"), batch, moved_logps(batch))
    method = made(f"temporal_schedule@criterion={criterion}")
    for ours in (
        loss_and_gradient(replace(method, rho=0.0), batch, moved_logps(batch)),
        loss_and_gradient(replace(method, finish=0.4), batch, moved_logps(batch)),
    ):
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("criterion", ["tp", "forking"])
@pytest.mark.parametrize("curve", ["linear", "power", "sigmoid"])
def test_the_kept_part_only_grows(criterion, curve):
    batch = random_batch(width=20)
    method = made(f"temporal_schedule@criterion={criterion}@curve={curve}")
    masks = [kept(method, batch, step / 20) for step in range(21)]
    assert (masks[0].sum(1) == 1).all() and torch.equal(masks[-1], batch.response_mask_BT)
    for before, after in itertools.pairwise(masks):
        assert not (before & ~after).any()


def test_the_reversed_schedule_ends_where_the_other_starts_and_the_static_one_stays():
    batch = random_batch(width=20)
    assert torch.equal(kept(made("temporal_schedule@reverse=true"), batch, 1.0), kept(made(), batch, 0.0))
    assert torch.equal(kept(made("temporal_schedule@reverse=true"), batch, 0.0), batch.response_mask_BT)
    static = made("temporal_schedule@curve=constant@rho=0.5")
    assert torch.equal(kept(static, batch, 0.0), kept(static, batch, 0.95))


def test_the_head_twin_keeps_as_many_tokens_from_the_front():
    batch = random_batch(width=20)
    tail, head = (kept(made(f"temporal_schedule@keep={k}"), batch, 0.4) for k in ("tail", "head"))
    assert torch.equal(tail.sum(1), head.sum(1)) and head[:, 0].all() and not torch.equal(tail, head)


def test_dropped_tokens_act_as_prompt():
    """The same loss and gradient as a batch from which the dropped prefix is cut off."""
    batch = random_batch(sizes=(4,), width=8)
    mask = torch.ones_like(batch.response_mask_BT)
    batch = replace(batch, response_mask_BT=mask)
    method, logp = made("temporal_schedule@rho=0.5@curve=constant"), moved_logps(batch)
    loss, gradient = loss_and_gradient(method, batch, logp)
    cut = replace(
        batch,
        response_ids_BT=batch.response_ids_BT[:, 4:],
        response_mask_BT=mask[:, 4:],
        old_logps_BT=batch.old_logps_BT[:, 4:],
        entropy_BT=batch.entropy_BT[:, 4:],
    )
    plain = replace(method, rho=0.0)
    short = logp.detach()[:, 4:].requires_grad_()
    other = frozen_loss(plain, frozen_stages(plain, cut, 0.5), short)
    torch.testing.assert_close(loss, other.detach())
    torch.testing.assert_close(gradient[:, 4:], torch.autograd.grad(other, short)[0])
    assert not gradient[:, :4].any()


def test_the_bonus_raises_advantages_and_never_turns_their_sign():
    batch = random_batch()
    method = made("temporal_schedule@criterion=entropy_adv")
    adv = method.advantage(batch)
    weight = method.token_weight(batch, adv, 0.2)
    change = adv * weight - adv
    rho = 0.99 * (1 - 0.2 / 0.8)
    expected = rho * torch.minimum(0.4 * batch.entropy_BT, adv.abs() / 2)
    torch.testing.assert_close(change, expected * (adv != 0), atol=1e-12, rtol=0)
    assert (change >= 0).all() and (weight > 0).all() and (change <= adv.abs() / 2 + 1e-12).all()


@pytest.mark.parametrize("criterion", ["tp", "forking", "entropy_adv"])
def test_the_shuffled_control_keeps_the_histogram_and_moves_the_places(criterion):
    batch = random_batch(width=20)
    rule, control = (made(f"temporal_schedule@criterion={criterion}@shuffle={s}") for s in ("false", "true"))
    ours, theirs = (frozen_stages(m, batch, 0.4) for m in (rule, control))
    assert torch.equal(ours.batch.response_mask_BT.sum(1), theirs.batch.response_mask_BT.sum(1))
    moved = theirs.weight_BT if criterion == "entropy_adv" else theirs.batch.response_mask_BT
    assert not torch.equal(moved, ours.weight_BT if criterion == "entropy_adv" else ours.batch.response_mask_BT)


def test_a_schedule_that_ends_before_it_begins_is_refused():
    with pytest.raises(UsageError, match="must be above begin"):
        made("temporal_schedule@begin=0.9")


@pytest.mark.parametrize(
    "spec",
    [
        "temporal_schedule",
        "temporal_schedule@criterion=entropy_adv",
        "temporal_schedule@criterion=forking@shuffle=true",
    ],
)
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
