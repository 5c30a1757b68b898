"""GRPO: a response's reward against its group, clipped ratios, mean over responses of their token means.

A_i = (R_i - mean_g) / (std_g + eps) with the unbiased deviation;
l_it = -min(r A_i, clip(r, 1 - clip_low, 1 + clip_high) A_i); loss = (1/N) sum_i (1/n_i) sum_t l_it.
With ``aggregation`` "token" the loss is the mean over all tokens instead.
"""

from typing import Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod, aggregate, group_normalize


@method(
    id="grpo",
    kind="objective",
    title="GRPO: group relative policy optimization",
    paper="arXiv:2402.03300",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    details={
        "advantage": "paper; unbiased deviation as the common libraries have it",
        "eps": "1e-4, as one library; another takes 1e-6",
        "group of one, equal rewards": "advantage exactly 0, counted in frac_zero_groups",
        "empty response": "adds 0 and counts in N",
        "kl": "reconstruction: no penalty towards a reference, as is common for verifiable rewards",
        "clip": "paper: 0.2 on both sides",
    },
)
class Grpo(ObjectiveMethod):
    """The yardstick of the kind; ``aggregation`` "token" is the usual variant of today's libraries."""

    eps: float = Field(1e-4, gt=0, description="added to the deviation")
    aggregation: Literal["seq", "token"] = Field("seq", description="mean over responses, or over all tokens")

    def advantage(self, batch):  # type: ignore[no-untyped-def]
        """``[B, T]``, one value a response."""
        adv_B = group_normalize(batch.rewards_B, batch.group_ids_B, eps=self.eps)
        return adv_B[:, None].expand(batch.response_mask_BT.shape)

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """Mean over responses of their token means, or over all tokens."""
        return aggregate(loss_BT, batch.response_mask_BT, self.aggregation)
