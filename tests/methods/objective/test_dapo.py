"""DAPO: its reduction to GRPO, the length penalty, groups that are drawn again, and the kind's checks."""

from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.objective.batch import joined
from harness.kinds.objective.checks import HashTask, loss_and_gradient, moved_logps, random_batch
from harness.kinds.objective.dynamic import LiveGroups, overlong_penalty
from harness.kinds.objective.samplers import GroupSampler
from harness.kinds.objective.stages import clipped_surrogate, zero_groups

OFF = "dapo@clip_high=0.2@max_rounds=1@overlong_cache=0"


def made(text="dapo"):
    return MethodSpec.parse(text).build()


def test_with_all_switched_off_it_is_grpo_over_tokens():
    batch = random_batch()
    ours = loss_and_gradient(made(OFF), batch, moved_logps(batch))
    theirs = loss_and_gradient(made("grpo@aggregation=token"), batch, moved_logps(batch))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_short_responses_are_not_penalised_by_default():
    batch = random_batch()
    assert torch.equal(made().rewards(batch), batch.rewards_B)


def test_a_good_token_has_more_room_above_than_below():
    ratio = torch.tensor([[1.27, 1.29, 0.79]]).double().requires_grad_()
    clipped_surrogate(ratio, torch.tensor([[1.0, 1.0, -1.0]]), made().clip_low, made().clip_high).sum().backward()
    assert ratio.grad.tolist() == [[-1, 0, 0]]


def test_the_penalty_is_zero_then_linear_then_one():
    lengths = torch.arange(0, 31)
    found = overlong_penalty(lengths, 20, 5)
    assert not found[:16].any() and (found[20:] == -1).all()
    assert found[15:21].tolist() == pytest.approx([0, -0.2, -0.4, -0.6, -0.8, -1])
    assert (found.diff() <= 0).all() and found.diff().abs().max() <= 0.2 + 1e-6
    assert not overlong_penalty(lengths, 20, 0).any()


def test_the_penalty_reaches_the_advantage():
    batch = random_batch(sizes=(4,))
    method = made("dapo@max_new_tokens=8@overlong_cache=0.5")
    expected = batch.rewards_B - (batch.lengths_B - 4).clamp(0, 4) / 4
    torch.testing.assert_close(method.rewards(batch), expected.double(), atol=1e-6, rtol=0)
    assert not method.centred and made(OFF).centred


def bare(seed, sizes, width):
    """A batch as it is before the old policy has been read."""
    batch = random_batch(seed, sizes, width)
    return replace(batch, hidden_BTD=None, logps_BTV=None, attention_BNN=None, values_BT=None)


@dataclass(frozen=True)
class Scripted:
    """A sampler of groups of two with rewards that follow from its seed; every second group is dead."""

    method: object
    seed: int = 0
    dead: int = 2

    def sample(self, step, previous):
        batch = bare(self.seed + step, (2,) * 4, 5 + self.seed % 2)
        rewards = torch.zeros(8).double()
        for group in range(4):
            rows = (batch.group_ids_B == group).nonzero()[:, 0]
            if group % self.dead:
                rewards[rows[(self.seed + group) % 2]] = 1
        return replace(batch, rewards_B=rewards), int(batch.lengths_B.sum())


def test_live_groups_fill_the_batch_and_dropped_tokens_are_counted():
    source = Scripted(made("dapo@prompts_per_update=4"))
    batch, generated = LiveGroups(source, 3).sample(0, None)
    assert len(torch.unique(batch.group_ids_B)) == 4 and batch.size == 8
    assert not zero_groups(batch.rewards_B, batch.group_ids_B).any()
    rounds = [replace(source, seed=seed).sample(0, None)[1] for seed in (0, 7919)]
    assert generated == sum(rounds)


def test_what_is_kept_is_what_filtering_afterwards_keeps():
    source = Scripted(made("dapo@prompts_per_update=4"))
    batch, _ = LiveGroups(source, 3).sample(0, None)
    every = joined([replace(source, seed=seed).sample(0, None)[0] for seed in (0, 7919)])
    live = ~zero_groups(every.rewards_B, every.group_ids_B)[every.group_ids_B]
    assert Counter(batch.old_logps_BT.sum(1).tolist()) == Counter(every.old_logps_BT[live].sum(1).tolist())


def test_when_rounds_are_used_up_the_batch_is_smaller_and_never_empty():
    source = Scripted(made("dapo@prompts_per_update=4"))
    assert LiveGroups(source, 1).sample(0, None)[0].size == 4
    dead = replace(source, dead=1)
    assert LiveGroups(dead, 2).sample(0, None)[0].size == 8


def test_the_first_round_has_the_problems_of_every_other_objective(tiny):
    method = made("dapo@prompts_per_update=3@group_size=4@max_new_tokens=4")
    object.__setattr__(method, "task", HashTask)
    plain, _ = GroupSampler(method, tiny, 5).sample(0, None)
    batch, generated = method.sampler(tiny, 5).sample(0, None)
    live = ~zero_groups(plain.rewards_B, plain.group_ids_B)
    first = plain.rows(live[plain.group_ids_B].nonzero()[:, 0])
    assert live.any() and generated >= int(plain.lengths_B.sum())
    assert torch.equal(batch.prompt_ids_BP[: first.size], first.prompt_ids_BP)


def test_batches_are_joined_with_their_padding_and_their_groups_apart():
    narrow, wide = bare(0, (2, 3), 4), bare(1, (2, 3), 6)
    both = joined(
        [narrow, replace(wide, prompt_ids_BP=torch.ones(5, 4).long(), prompt_mask_BP=torch.ones(5, 4).bool())]
    )
    assert both.prompt_mask_BP[:5].tolist() == [[False, False, True, True]] * 5
    assert both.response_mask_BT.shape == (10, 6) and not both.response_mask_BT[:5, 4:].any()
    assert torch.equal(both.group_ids_B[5:], wide.group_ids_B + 2)
    assert torch.equal(both.old_logps_BT[:5, :4], narrow.old_logps_BT)


@pytest.mark.parametrize("spec", ["dapo", OFF])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
