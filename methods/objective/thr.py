"""THR: train the tokens whose update moves the log-probability of the correct responses, and say by how much more.

For a token with state h and prediction error g = onehot(y) - p, let M = sum over correct responses i of
(1/n_i) sum_k g_ik h_ik^T. To first order an update on token (j, k) changes the mean log-probability of the correct
responses by its reward's sign times THR = (2 R_j - 1) g_jk^T M h_jk. Tokens with |THR| > tau keep their advantage,
times 1 + sign(THR) p; the others have none. p > 0 exploits, p < 0 explores. tau = ``tau_scale`` times the least mean
score of a correct response. ``variant`` "nthr": only tokens of wrong responses with g^T M' h > tau, M' without 1/n_i,
are changed, by eta = 2 |1/2 - share of correct|.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod
from harness.kinds.objective.stages import masked
from harness.kinds.objective.tokens import shuffled


def prediction_errors(logps_RTV: Tensor, ids_RT: Tensor, mask_RT: Tensor) -> Tensor:
    """``g`` over the ids that occur in the group's responses, ``[R, T, V*]``, 0 at padding; not renormalised."""
    used_V = ids_RT[mask_RT].unique()
    error_RTV = -logps_RTV[..., used_V].exp()
    error_RTV = error_RTV + (ids_RT[..., None] == used_V).to(error_RTV.dtype)
    return torch.where(mask_RT[..., None], error_RTV, torch.zeros_like(error_RTV))


def influence(
    hidden_RTD: Tensor, logps_RTV: Tensor, ids_RT: Tensor, mask_RT: Tensor, right_R: Tensor, by_length: bool = True
) -> Tensor:
    """``g^T M h`` of each token of one group, ``[R, T]``, float32 at least; ``by_length`` is the factor 1/n_i in M."""
    dtype = torch.float64 if hidden_RTD.dtype == torch.float64 else torch.float32
    error_RTV = prediction_errors(logps_RTV.to(dtype), ids_RT, mask_RT)
    state_RTD = torch.where(mask_RT[..., None], hidden_RTD, torch.zeros_like(hidden_RTD)).to(dtype)
    weight_R = right_R.to(dtype) / (mask_RT.sum(1).clamp(min=1) if by_length else 1)
    moments_VD = torch.einsum("r,rtv,rtd->vd", weight_R, error_RTV, state_RTD)
    return ((error_RTV @ moments_VD) * state_RTD).sum(-1)


@method(
    id="thr",
    kind="objective",
    title="THR: token hidden reward",
    paper="arXiv:2510.03669",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    identity={"p": 0.0, "threshold": "all"},
    claims=[
        {
            "metric": "average greedy accuracy, p = 0.1",
            "value": 46.8,
            "against": "42.7 GRPO, 43.3 with p = 0",
            "on": "Qwen2.5-Math-7B (reported second-hand)",
        },
        {
            "metric": "Pass@256, p < 0",
            "value": 76.7,
            "against": "72.5 GRPO",
            "on": "Qwen2.5-Math-1.5B (reported second-hand)",
        },
    ],
    details={
        "formulas": "public digests; the paper was not read in full and has no released code",
        "p": "public digests: 0.1 in the headline, 0.05 to 0.2 tried",
        "tau": "public digests, after NTHR, whose exact statistic one wording leaves open; ours: never below 0",
        "threshold quantile": "reconstruction: a quantile of |THR| in the group instead",
        "vocabulary": "the ids of the group's responses, probabilities not renormalised",
        "groups with one outcome only": "as grpo, whose advantages are 0 there",
        "dynamic sampling, kl": "not offered; everything else as grpo",
    },
)
class Thr(ObjectiveMethod):
    """Weights of GRPO's token losses, made from the old policy and fixed for all steps of an update."""

    requires = frozenset({"hidden", "logps"})

    variant: Literal["thr", "nthr"] = Field("thr", description="both signs and p, or the wrong responses alone and eta")
    p: float = Field(0.1, ge=-1, le=1, description="what tokens of positive THR gain and those of negative THR lose")
    threshold: Literal["mean", "quantile", "all"] = Field("mean", description="what |THR| must exceed")
    tau_scale: float = Field(1.0, ge=0, description="factor on the least mean score (threshold mean)")
    quantile: float = Field(
        0.5, ge=0, lt=1, description="part of a group's tokens that is dropped (threshold quantile)"
    )
    right_from: float = Field(0.5, description="a response is correct from this reward on")
    shuffle: bool = Field(False, description="control: the scores in random places of each response")

    def token_weight(self, batch, adv_BT, progress):  # type: ignore[no-untyped-def]
        """``1[|THR| > tau] (1 + sign(THR) p)``, or eta, ``[B, T]``."""
        right_B = batch.rewards_B >= self.right_from
        score_BT = torch.zeros_like(batch.old_logps_BT)
        groups = [(batch.group_ids_B == group).nonzero()[:, 0] for group in batch.group_ids_B.unique()]
        mixed = [rows for rows in groups if bool(right_B[rows].any()) and not bool(right_B[rows].all())]
        for rows in mixed:
            score_BT[rows] = influence(
                batch.hidden_BTD[rows],
                batch.logps_BTV[rows],
                batch.response_ids_BT[rows],
                batch.response_mask_BT[rows],
                right_B[rows],
                self.variant == "thr",
            ).to(score_BT.dtype)
        if self.shuffle:
            score_BT = shuffled(score_BT, batch)
        weight_BT = torch.ones_like(score_BT)
        for rows in mixed:
            weight_BT[rows] = self._weights(score_BT[rows], batch.response_mask_BT[rows], right_B[rows])
        return weight_BT

    def _weights(self, score_RT, mask_RT, right_R):  # type: ignore[no-untyped-def]
        """Weights of one group from its scores without the reward's sign."""
        tau = self._tau(score_RT, mask_RT, right_R)
        if self.variant == "nthr":
            eta = 2 * (0.5 - right_R.double().mean()).abs().to(score_RT)
            return torch.where(~right_R[:, None] & (score_RT > tau), eta, torch.ones_like(score_RT))
        thr_RT = torch.where(right_R[:, None], score_RT, -score_RT)
        return (thr_RT.abs() > tau) * (1 + thr_RT.sign() * self.p)

    def _tau(self, score_RT, mask_RT, right_R):  # type: ignore[no-untyped-def]
        if self.threshold == "all":
            return -torch.inf
        if self.threshold == "quantile":
            return torch.quantile(score_RT[mask_RT].abs(), self.quantile)
        mean_R = masked(score_RT, mask_RT).sum(1) / mask_RT.sum(1).clamp(min=1)
        return (self.tau_scale * mean_R[right_R].min()).clamp(min=0)
