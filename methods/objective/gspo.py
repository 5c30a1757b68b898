"""GSPO: one ratio a response, the geometric mean of its tokens' ratios.

s_i = exp((1/n_i) sum_t (log p - log p_old)); l_i = -min(s_i A_i, clip(s_i, 1 - clip_low, 1 + clip_high) A_i); mean over
responses. The token variant s_it = sg[s_i] p / sg[p] (sg: no gradient) has the same value, and gives each token the
gradient s_i grad log p_it; it is for advantages or weights that differ within a response.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod
from harness.kinds.objective.stages import LOG_RATIO_LIMIT, masked


def sequence_ratios(logp_BT: Tensor, old_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """``s_i`` at each token, ``[B, T]``; 1 in an empty response."""
    mean_B = masked(logp_BT - old_BT, mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1)
    return mean_B.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()[:, None].expand(logp_BT.shape)


def token_carried(sequence_BT: Tensor, logp_BT: Tensor) -> Tensor:
    """The ratios' values with a gradient of each token's own, ``[B, T]``."""
    return sequence_BT.detach() * (logp_BT - logp_BT.detach()).exp()


@method(
    id="gspo",
    kind="objective",
    title="GSPO: group sequence policy optimization",
    paper="arXiv:2507.18071",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    details={
        "clip": "paper: 3e-4 below, 4e-4 above, since a geometric mean moves far less than one token's ratio",
        "mean log ratio": "cut at 20, as the tokens' are in grpo",
        "everything else": "as grpo",
    },
)
class Gspo(ObjectiveMethod):
    """Both variants are equal where advantages are one a response, as they are here."""

    clip_low: float = Field(3e-4, gt=0, le=1, description="ratios below 1 minus this are clipped")
    clip_high: float = Field(4e-4, gt=0, description="ratios above 1 plus this are clipped")
    variant: Literal["sequence", "token"] = Field("sequence", description="where the ratio's gradient goes")

    def ratio(self, logp_BT, batch):  # type: ignore[no-untyped-def]
        """One value a response, ``[B, T]``."""
        sequence_BT = sequence_ratios(logp_BT, batch.old_logps_BT, batch.response_mask_BT)
        return sequence_BT if self.variant == "sequence" else token_carried(sequence_BT, logp_BT)
