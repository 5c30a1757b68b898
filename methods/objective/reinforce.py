"""REINFORCE: the reward of a whole response, less a baseline, on the log-probability of each of its tokens.

loss = -(1/N) sum_i sum_t A_i log p(y_it), with A_i = R_i, or A_i = R_i - b where b is the mean reward of all earlier
updates. Its gradient is that of the expected reward, without bias, whatever the lengths.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod, RolloutBatch, aggregate
from harness.kinds.objective.samplers import GroupSampler


@dataclass(frozen=True)
class WithRunningMean:
    """Writes the mean reward of the updates before into the values of each batch; nothing where there are none."""

    groups: GroupSampler

    def sample(self, step: int, previous: RolloutBatch | None) -> tuple[RolloutBatch, int]:
        """The mean follows from the batch before and its own values, so that nothing else is remembered."""
        batch, generated = self.groups.sample(step, previous)
        if previous is None:
            return batch, generated
        before = 0.0 if previous.values_BT is None else float(previous.values_BT[0, 0])
        mean = before + (float(previous.rewards_B.mean()) - before) / step
        return replace(batch, values_BT=torch.full_like(batch.behavior_logps_BT, mean)), generated


@method(
    id="reinforce",
    kind="objective",
    title="REINFORCE, plain or with a running mean of the rewards as baseline",
    paper="doi:10.1007/BF00992696",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    details={
        "aggregation": "paper: the sum over a response's tokens, which alone is unbiased",
        "running mean": "ours: the exact mean of all earlier batches, 0 at first; it does not know the batch it judges",
        "ratio": "none; with several minibatches all but the first are a step off-policy, as in practice",
        "learning rate": "that of the kind; AdamW and the cut norm take up that sums are larger than means",
    },
)
class Reinforce(ObjectiveMethod):
    """The plainest policy gradient."""

    centred = False

    baseline: Literal["zero", "running_mean"] = Field("zero", description="what is taken off the reward")

    def sampler(self, subject, seed):  # type: ignore[no-untyped-def]
        """Whole groups, with the running mean where it is asked for."""
        groups = GroupSampler(self, subject, seed)
        return groups if self.baseline == "zero" else WithRunningMean(groups)

    def advantage(self, batch):  # type: ignore[no-untyped-def]
        """The reward less the baseline, ``[B, T]``; a batch without one (the first) has 0."""
        reward_BT = batch.rewards_B[:, None].expand(batch.response_mask_BT.shape)
        return reward_BT if self.baseline == "zero" or batch.values_BT is None else reward_BT - batch.values_BT

    def surrogate(self, logp_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """``-A log p``."""
        return -adv_BT * logp_BT

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """Sum over tokens, mean over responses."""
        return aggregate(loss_BT, batch.response_mask_BT, "seq_sum")
