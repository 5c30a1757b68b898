"""RLOO: its baseline by loops, its relation to Dr. GRPO, and the kind's checks. Unbiasedness: test_unbiased.py."""

import statistics
from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.objective.checks import loss_and_gradient, moved_logps, random_batch
from methods.objective.rloo import leave_one_out


def made(text="rloo"):
    return MethodSpec.parse(text).build()


def test_the_baseline_is_the_mean_of_the_others():
    rewards = torch.tensor([0.2, 1.0, 0.5, 0.0, 0.7]).double()
    groups = torch.tensor([3, 1, 3, 3, 1])
    expected = [
        float(rewards[i]) - statistics.fmean(float(rewards[j]) for j in range(5) if j != i and groups[j] == groups[i])
        for i in range(5)
    ]
    assert leave_one_out(rewards, groups).tolist() == pytest.approx(expected, abs=1e-12)


def test_it_is_dr_grpo_times_the_groups_size_over_one_less():
    batch = random_batch(sizes=(4, 4))
    theirs = MethodSpec.parse("dr_grpo").build().advantage(batch)
    torch.testing.assert_close(made().advantage(batch), theirs * 4 / 3, atol=1e-12, rtol=0)


def test_a_constant_on_all_rewards_of_a_group_changes_nothing():
    batch = random_batch()
    moved = replace(batch, rewards_B=batch.rewards_B + batch.group_ids_B)
    torch.testing.assert_close(made().advantage(moved), made().advantage(batch), atol=1e-12, rtol=0)


def test_groups_of_one_and_equal_groups_teach_nothing():
    batch = random_batch(sizes=(1, 3))
    batch = replace(batch, rewards_B=torch.where(batch.group_ids_B == 0, 1.0, 0.5).double())
    assert not loss_and_gradient(made(), batch, moved_logps(batch))[1].any()


@pytest.mark.parametrize("spec", ["rloo", "rloo@aggregation=token"])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
