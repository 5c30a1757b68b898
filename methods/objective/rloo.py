"""RLOO: a response's reward against the mean of the others in its group.

A_i = R_i - (1/(G-1)) sum_{j != i} R_j = G/(G-1) (R_i - mean_g); loss = -(1/N) sum_i sum_t A_i log p(y_it). The others
do not depend on response i, so the gradient is that of the expected reward without bias. ``aggregation`` "seq" and
"token" show what the usual means over tokens do to that.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod, aggregate, group_normalize
from harness.kinds.objective.stages import group_index, group_sum


def leave_one_out(rewards_B: Tensor, group_ids_B: Tensor) -> Tensor:
    """Reward less the mean of the other responses to the prompt, ``[B]``; 0 in groups of one."""
    group_B, groups = group_index(group_ids_B)
    size_B = group_sum(torch.ones_like(rewards_B), group_B, groups)[group_B]
    return group_normalize(rewards_B, group_ids_B, "none") * size_B / (size_B - 1).clamp(min=1)


@method(
    id="rloo",
    kind="objective",
    title="RLOO: REINFORCE with a leave-one-out baseline",
    paper="arXiv:2402.14740",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    details={
        "aggregation": "paper: the sum over a response's tokens",
        "ratio": "paper: none; with several minibatches all but the first are a step off-policy",
        "group of one": "advantage 0",
        "kl": "ours: no penalty, as for the other objectives here",
    },
)
class Rloo(ObjectiveMethod):
    """The unbiased yardstick."""

    aggregation: Literal["seq_sum", "seq", "token"] = Field("seq_sum", description="only seq_sum is unbiased")

    def advantage(self, batch):  # type: ignore[no-untyped-def]
        """``[B, T]``, one value a response."""
        return leave_one_out(batch.rewards_B, batch.group_ids_B)[:, None].expand(batch.response_mask_BT.shape)

    def surrogate(self, logp_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """``-A log p``."""
        return -adv_BT * logp_BT

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """Sum over tokens and mean over responses, unless a biased mean is asked for."""
        return aggregate(loss_BT, batch.response_mask_BT, self.aggregation)
