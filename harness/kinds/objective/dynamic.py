"""The recipe of dynamic sampling: live groups, the mean over tokens, more room above, and a price for length."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import replace

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from harness.kinds.objective.base import ObjectiveMethod
from harness.kinds.objective.batch import RolloutBatch, joined
from harness.kinds.objective.samplers import GroupSampler, RolloutSampler
from harness.kinds.objective.stages import aggregate, group_index, zero_groups
from harness.subjects.subject import Subject

SEEDS_BETWEEN_ROUNDS = 7_919
"""Each round has its own seed, this far from the round before."""


@plain_dataclass(frozen=True)
class LiveGroups:
    """Groups whose rewards differ, drawn in up to ``rounds`` rounds until there are ``prompts_per_update`` of them.

    The first round is what :class:`GroupSampler` draws. If no round has a live group the first one is the batch.
    """

    groups: GroupSampler
    rounds: int

    def sample(self, step: int, previous: RolloutBatch | None) -> tuple[RolloutBatch, int]:
        """Fewer groups where the rounds are used up; the dropped ones count as generated."""
        wanted, live, generated = self.groups.method.prompts_per_update, 0, 0
        drawn: list[RolloutBatch] = []
        for turn in range(self.rounds):
            source = replace(self.groups, seed=self.groups.seed + turn * SEEDS_BETWEEN_ROUNDS)
            batch, tokens = source.sample(step, previous)
            generated += tokens
            drawn.append(batch)
            live += int((~zero_groups(batch.rewards_B, batch.group_ids_B)).sum())
            if live >= wanted:
                break
        if live == 0:
            return drawn[0], generated
        every = joined(drawn)
        group_B, _ = group_index(every.group_ids_B)
        kept = (~zero_groups(every.rewards_B, every.group_ids_B)).nonzero()[:wanted, 0]
        return every.rows(torch.isin(group_B, kept).nonzero()[:, 0]), generated


def overlong_penalty(lengths_B: Tensor, longest: int, cache: int) -> Tensor:
    """What a response of these lengths loses, ``[B]``: 0 up to ``longest - cache`` tokens, then linearly down to -1."""
    if cache == 0:
        return torch.zeros(lengths_B.shape, device=lengths_B.device)
    return ((longest - cache - lengths_B) / cache).clamp(-1.0, 0.0)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DynamicSampling(ObjectiveMethod):
    """With clip_high=0.2, max_rounds=1 and overlong_cache=0 it is GRPO with token aggregation on live groups."""

    clip_high: float = Field(0.28, gt=0, description="ratios above 1 plus this are clipped")
    max_rounds: int = Field(3, ge=1, description="rounds of sampling for one update; 1 drops groups but draws no more")
    overlong_cache: float = Field(0.2, ge=0, le=1, description="last part of the allowed length that is penalised")

    @property
    def centred(self) -> bool:  # type: ignore[override]
        """Lengths teach too, unless the penalty is off."""
        return self.overlong_cache == 0

    def sampler(self, subject: Subject, seed: int) -> RolloutSampler:
        """Live groups only."""
        return LiveGroups(GroupSampler(self, subject, seed), self.max_rounds)

    def rewards(self, batch: RolloutBatch) -> Tensor:
        """The task's rewards less the penalty for length."""
        cache = round(self.overlong_cache * self.max_new_tokens)
        return batch.rewards_B + overlong_penalty(batch.lengths_B, self.max_new_tokens, cache)

    def aggregate(self, loss_BT: Tensor, batch: RolloutBatch, adv_BT: Tensor) -> Tensor:
        """Mean over all tokens."""
        return aggregate(loss_BT, batch.response_mask_BT, "token")
