"""GRPO: its formula by a loop, its edge cases, and the kind's checks."""

import statistics
from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.objective.checks import loss_and_gradient, moved_logps, random_batch


def grpo(text="grpo"):
    return MethodSpec.parse(text).build()


def oracle(batch, logp, aggregation, low=0.2, high=0.2, eps=1e-4):
    """The loss by three nested loops."""
    rewards, groups = batch.rewards_B.tolist(), batch.group_ids_B.tolist()
    rows = []
    for i, (reward, group) in enumerate(zip(rewards, groups, strict=True)):
        same = [r for r, g in zip(rewards, groups, strict=True) if g == group]
        adv = 0.0 if len(set(same)) == 1 else (reward - statistics.fmean(same)) / (statistics.stdev(same) + eps)
        row = []
        for t in range(int(batch.lengths_B[i])):
            r = float((logp[i, t] - batch.old_logps_BT[i, t]).exp())
            row.append(-min(r * adv, min(max(r, 1 - low), 1 + high) * adv))
        rows.append(row)
    if aggregation == "seq":
        return statistics.fmean(statistics.fmean(row) for row in rows)
    return statistics.fmean([v for row in rows for v in row])


@pytest.mark.parametrize("aggregation", ["seq", "token"])
def test_loss_against_loops(aggregation):
    batch = random_batch(5)
    logp = moved_logps(batch)
    loss, _ = loss_and_gradient(grpo(f"grpo@aggregation={aggregation}"), batch, logp)
    assert float(loss) == pytest.approx(oracle(batch, logp.detach(), aggregation), abs=1e-12)


def test_asymmetric_clip_reaches_the_surrogate():
    batch = random_batch(5)
    logp = moved_logps(batch)
    loss, _ = loss_and_gradient(grpo("grpo@clip_low=0.1@clip_high=0.4"), batch, logp)
    assert float(loss) == pytest.approx(oracle(batch, logp.detach(), "seq", 0.1, 0.4), abs=1e-12)


def test_at_the_snapshot_the_value_is_zero_and_the_gradient_is_not():
    batch = random_batch()
    loss, gradient = loss_and_gradient(grpo(), batch, batch.old_logps_BT.clone().requires_grad_())
    assert abs(float(loss)) < 1e-12
    assert float(gradient.abs().sum()) > 0.1


def test_gradient_at_the_snapshot_is_the_policy_gradient_over_length():
    batch = random_batch()
    method = grpo()
    _, gradient = loss_and_gradient(method, batch, batch.old_logps_BT.clone().requires_grad_())
    expected = -method.advantage(batch) / batch.lengths_B[:, None] / batch.size
    torch.testing.assert_close(gradient, expected * batch.response_mask_BT, atol=1e-12, rtol=0)


def test_permuting_rewards_within_a_group_permutes_advantages():
    batch = random_batch(sizes=(5,))
    batch = replace(batch, rewards_B=torch.tensor([0.0, 0.2, 0.9, 1.0, 0.4]).double())
    order = torch.tensor([3, 1, 4, 0, 2])
    moved = replace(batch, rewards_B=batch.rewards_B[order])
    assert torch.allclose(grpo().advantage(moved), grpo().advantage(batch)[order], atol=1e-12)


def test_group_of_one_and_equal_groups_teach_nothing():
    batch = random_batch(sizes=(1, 3))
    batch = replace(batch, rewards_B=torch.where(batch.group_ids_B == 0, 1.0, 0.5).double())
    _, gradient = loss_and_gradient(grpo(), batch, moved_logps(batch))
    assert not gradient.any()


def test_an_empty_response_adds_nothing_and_counts():
    batch = random_batch(sizes=(4,))
    mask = batch.response_mask_BT.clone()
    mask[1] = False
    empty = replace(batch, response_mask_BT=mask)
    logp = moved_logps(batch)
    rows = grpo().surrogate(logp, batch, grpo().advantage(batch))
    means = [(rows[i] * mask[i]).sum() / mask[i].sum() for i in (0, 2, 3)]
    loss, _ = loss_and_gradient(grpo(), empty, logp)
    assert float(loss) == pytest.approx(float(sum(means)) / 4, abs=1e-12)


@pytest.mark.parametrize("spec", ["grpo", "grpo@aggregation=token@eps=0.01"])
def test_checks(tiny, spec):
    results = run_checks(grpo(spec), tiny)
    assert len(results) == 8
    assert [f"{r.name}: {r.reason}" for r in results if not r.passed] == []
