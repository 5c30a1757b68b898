"""TW-GRPO: positions at which the group's next-token laws disagree weigh more.

At position t of a group the responses predict with laws p_i. ``divergence`` "kl": D_t = (1/G) sum_i KL(p_i || p), p
their mean. "released": with m the mean of the log-probabilities and d = clamp(m - log p_i, -11, 11), D_t is the mean
over i of sum_v (e^d - d - 1), which no probability weighs. D is scaled to [0, 1] over the group's positions;
w_t = 1 + (w_max - 1) D_t, one weight for all responses of the group. loss = sum w l / number of tokens.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod, aggregate
from harness.kinds.objective.tokens import shuffled

POSITIONS_AT_ONCE = 32
"""So many positions of a group's laws are compared at a time, since vocabularies may be large."""


def divergence(logps_GTV: Tensor, alive_GT: Tensor, rule: str, ended: str) -> Tensor:
    """``D`` of each position, ``[T]``.

    ``ended`` says what a response is after its end: "uniform", a law that knows nothing, or "exclude", no part of the
    mean. Where nobody is alive it is 0.
    """
    if ended == "uniform":
        logps_GTV = torch.where(alive_GT[..., None], logps_GTV, -torch.full_like(logps_GTV, logps_GTV.shape[-1]).log())
        present_GT1 = torch.ones_like(alive_GT)[..., None]
    else:
        logps_GTV = torch.where(alive_GT[..., None], logps_GTV, torch.zeros_like(logps_GTV))
        present_GT1 = alive_GT[..., None]
    count_T1 = present_GT1.sum(0).clamp(min=1)
    if rule == "released":
        mean_TV = (logps_GTV * present_GT1).sum(0) / count_T1
        d_GTV = (mean_TV - logps_GTV).clamp(-11, 11)
        found_GT = (d_GTV.exp() - d_GTV - 1).sum(-1)
    else:
        p_GTV = logps_GTV.exp()
        mean_TV = ((p_GTV * present_GT1).sum(0) / count_T1).clamp(min=torch.finfo(p_GTV.dtype).tiny).log()
        found_GT = (p_GTV * (logps_GTV - mean_TV)).sum(-1)
    return (found_GT * present_GT1[..., 0]).sum(0) / count_T1[:, 0] * alive_GT.any(0)


def position_weights(logps_GTV: Tensor, alive_GT: Tensor, w_max: float, rule: str, ended: str) -> Tensor:
    """Weights ``[T]`` in [1, w_max] of a group's positions; 1 where fewer are alive than can be compared."""
    parts = [
        divergence(logps, alive, rule, ended)
        for logps, alive in zip(
            logps_GTV.split(POSITIONS_AT_ONCE, 1), alive_GT.split(POSITIONS_AT_ONCE, 1), strict=True
        )
    ]
    d_T, compared_T = torch.cat(parts), alive_GT.sum(0) >= (1 if ended == "uniform" else 2)
    if not bool(compared_T.any()):
        return torch.ones_like(d_T)
    low, high = d_T[compared_T].min(), d_T[compared_T].max()
    return torch.where(compared_T, 1 + (w_max - 1) * (d_T - low) / (high - low + 1e-8), torch.ones_like(d_T))


@method(
    id="tw_grpo",
    kind="objective",
    title="TW-GRPO: token-weighted GRPO",
    paper="arXiv:2505.24718",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    claims=[
        {
            "metric": "accuracy",
            "value": 0.504,
            "against": "0.411 GRPO (an extension's ablation; 0.486 with the soft reward and without weights)",
            "on": "CLEVRER",
        },
        {"metric": "accuracy", "value": 0.658, "against": "Video-R1", "on": "MMVU"},
    ],
    details={
        "w_max": "reference code: 1.4 by default, 1.7 in the published run",
        "divergence": "reference code: a sum over the vocabulary without probabilities, which the paper calls KL",
        "ended": "reference code: ended responses are uniform laws, which weighs up the tails of the long ones",
        "positions after the longest response": "left out of the scaling; in the reference code they move the minimum",
        "aggregation": "reference code: over tokens, so w_max=1 is grpo with token aggregation",
        "soft reward": "a reward of the task, not of this objective: problems=multi_select_soft",
        "question inversion": "data, not this objective: problems=multi_select_inverted negates each question that has "
        "one right answer, whose complement is then right; ours: all of them, and no question is asked both ways",
    },
)
class TwGrpo(ObjectiveMethod):
    """The defaults are what the paper names; divergence=released and ended=uniform are what its code does."""

    requires = frozenset({"logps"})

    w_max: float = Field(1.4, ge=1, description="weight of the position with the most disagreement")
    divergence: Literal["kl", "released"] = Field("kl", description="how disagreement is measured")
    ended: Literal["exclude", "uniform"] = Field("exclude", description="what a response counts as after its end")
    shuffle: bool = Field(False, description="control: the weights in random places of each response")

    def token_weight(self, batch, adv_BT, progress):  # type: ignore[no-untyped-def]
        """One weight a position and group, ``[B, T]``."""
        weight_BT = torch.ones_like(batch.old_logps_BT)
        for group in batch.group_ids_B.unique():
            rows = (batch.group_ids_B == group).nonzero()[:, 0]
            weight_BT[rows] = position_weights(
                batch.logps_BTV[rows], batch.response_mask_BT[rows], self.w_max, self.divergence, self.ended
            )
        return shuffled(weight_BT, batch) if self.shuffle else weight_BT

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """Mean over all tokens."""
        return aggregate(loss_BT, batch.response_mask_BT, "token")
