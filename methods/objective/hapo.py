"""HAPO: one signal from each token's entropy sets temperature, advantage and clip bounds of that token.

u = log H, c its 0.8-quantile over the valid tokens; h = (u - c) / max(u - c) above c and (u - c) / |min(u - c)| below,
so h is in [-1, 1]. A. Temperature T (1 + tau h) while sampling, with c and the scales of the batch before.
B. Rewards standardised over the tokens of a group, not over its responses. C. With ratio r, A (1 + beta h) where h > 0
and r is outside the neutral zone [1 - e_L/2, 1 + e_R/2], or h <= 0 and r is inside. D. e_L (1 - alpha h) for h <= 0,
e_R (1 + alpha h) for h > 0. All else as DAPO, with a dual clip.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.objective import clipped_surrogate, group_normalize
from harness.kinds.objective.dynamic import DynamicSampling
from harness.kinds.objective.stages import group_index, group_sum, masked, zero_groups
from harness.kinds.objective.tokens import shuffled

LEAST_ENTROPY, LARGEST_ADVANTAGE = 1e-8, 5.0


@dataclass(frozen=True)
class EntropyScale:
    """The quantile ``c`` of the log entropies, and how far the largest and the smallest lie from it (0-d tensors)."""

    c: Tensor
    top: Tensor
    bottom: Tensor

    @classmethod
    def of(cls, entropy_BT: Tensor, mask_BT: Tensor, quantile: float) -> "EntropyScale":
        """The scale of the valid tokens; the quantile is the nearest value that occurs."""
        u_N = entropy_BT[mask_BT].clamp(min=LEAST_ENTROPY).log().sort().values
        c = u_N[round(quantile * (len(u_N) - 1))]
        return cls(c, u_N[-1] - c, c - u_N[0])

    def signal(self, entropy: Tensor, sign: str = "intended") -> Tensor:
        """``h`` in [-1, 1] of entropies of any shape; 0 where the scale has no width."""
        u = entropy.clamp(min=LEAST_ENTROPY).log() - self.c
        width = torch.where(u > 0, self.top, self.bottom)
        h = torch.where(width > 0, u / width, torch.zeros_like(u)).clamp(-1, 1)
        return h.abs() if sign == "released" else h


def token_normalize(rewards_B: Tensor, group_ids_B: Tensor, mask_BT: Tensor) -> Tensor:
    """``(R_i - mean) / (std + 1e-6)``, ``[B]``, mean and biased std over the tokens of the group.

    Groups in which this reaches 5 are normalised over responses instead; groups with equal rewards get 0.
    """
    group_B, groups = group_index(group_ids_B)
    length_B = mask_BT.sum(1).to(rewards_B.dtype)
    tokens_G = group_sum(length_B, group_B, groups).clamp(min=1)
    centred_B = rewards_B - (group_sum(length_B * rewards_B, group_B, groups) / tokens_G)[group_B]
    std_G = (group_sum(length_B * centred_B.square(), group_B, groups) / tokens_G).sqrt()
    adv_B = centred_B / (std_G + 1e-6)[group_B]
    wild_G = group_sum((adv_B.abs() >= LARGEST_ADVANTAGE).to(adv_B.dtype), group_B, groups) > 0
    adv_B = torch.where(wild_G[group_B], group_normalize(rewards_B, group_ids_B), adv_B)
    return torch.where(zero_groups(rewards_B, group_ids_B)[group_B], torch.zeros_like(adv_B), adv_B)


def redistribute(adv_BT: Tensor, h_BT: Tensor, ratio_BT: Tensor, low, high, beta: float) -> Tensor:  # type: ignore[no-untyped-def]
    """The advantage, amplified for uncertain tokens that move and damped for certain ones that do not, ``[B, T]``."""
    inside_BT = (ratio_BT >= 1 - low / 2) & (ratio_BT <= 1 + high / 2)
    return torch.where((h_BT > 0) != inside_BT, adv_BT * (1 + beta * h_BT), adv_BT)


@method(
    id="hapo",
    kind="objective",
    title="HAPO: heterogeneous adaptive policy optimization",
    paper="arXiv:2509.16591",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    claims=[
        {"metric": "average", "value": 50.04, "against": "46.97 DAPO", "on": "Qwen2.5-Math-7B (reported second-hand)"},
        {"metric": "average", "value": 62.09, "against": "58.06 DAPO", "on": "a 14B model (reported second-hand)"},
    ],
    details={
        "sign": "paper: h in [-1, 1]; the released code divides the lower branch by a negative number, so h >= 0",
        "spread around the quantile": "reference code divides by it before the largest value cancels it; left out",
        "scope of h": "reference code: the tokens of one minibatch (of the whole batch before, while sampling)",
        "tau": "public digests: 0.1; the released scripts have 0.05",
        "clip": "public digests: 0.2 and 0.28; the released 7B script has 0.2 and 0.2",
        "zone": "paper's formula: the bounds before D; the released code takes those after it",
        "dual_clip": "reference code: 10",
        "B": "reference code: over responses where an advantage reaches 5",
        "group filter, length penalty, aggregation": "as dapo",
    },
)
class Hapo(DynamicSampling):
    """tau=0, token_average=false, beta=0 and alpha=0 switch A to D off; what is left is DAPO with a dual clip."""

    quantile: float = Field(0.8, gt=0, lt=1, description="of the log entropies; h is 0 there")
    tau: float = Field(0.1, ge=0, lt=1, description="A: how far the temperature moves, 0 for not at all")
    token_average: bool = Field(True, description="B: standardise over tokens instead of responses")
    beta: float = Field(1.0, ge=0, le=1, description="C: how far advantages move, 0 for not at all")
    alpha: float = Field(1.0, ge=0, le=1, description="D: how far clip bounds widen, 0 for not at all")
    zone: Literal["base", "adapted"] = Field("base", description="bounds that make the neutral zone: before D, after D")
    sign: Literal["intended", "released"] = Field("intended", description="sign of h for low entropies")
    dual_clip: float = Field(10.0, gt=1, description="the loss of a bad token is at most this times |A|")
    shuffle: bool = Field(False, description="control: h in random places of each response")

    def signal(self, batch):  # type: ignore[no-untyped-def]
        """``h`` of each token, ``[B, T]``."""
        scale = EntropyScale.of(batch.entropy_BT, batch.response_mask_BT, self.quantile)
        h_BT = masked(scale.signal(batch.entropy_BT, self.sign), batch.response_mask_BT)
        return shuffled(h_BT, batch) if self.shuffle else h_BT

    def sampling(self, previous):  # type: ignore[no-untyped-def]
        """A: warmer where the batch before says that a token is uncertain."""
        plain = super().sampling(previous)
        if previous is None or self.tau == 0:
            return plain
        scale = EntropyScale.of(previous.entropy_BT, previous.response_mask_BT, self.quantile)

        def temper(logits_BV):  # type: ignore[no-untyped-def]
            logp_BV = (logits_BV / self.temperature).log_softmax(-1)
            h_B = scale.signal(-(logp_BV.exp() * logp_BV).sum(-1), self.sign)
            return self.temperature * (1 + self.tau * h_B[:, None])

        return replace(plain, temper=temper)

    def advantage(self, batch):  # type: ignore[no-untyped-def]
        """B: ``[B, T]``, one value a response."""
        if not self.token_average:
            return super().advantage(batch)
        adv_B = token_normalize(batch.rewards_B, batch.group_ids_B, batch.response_mask_BT)
        return adv_B[:, None].expand(batch.response_mask_BT.shape)

    def bounds(self, batch):  # type: ignore[no-untyped-def]
        """D: wider below for certain tokens, above for uncertain ones."""
        h_BT = self.signal(batch)
        return self.clip_low * (1 + self.alpha * (-h_BT).clamp(min=0)), self.clip_high * (
            1 + self.alpha * h_BT.clamp(min=0)
        )

    def surrogate(self, logp_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """C, then the clipped loss with the bounds of D."""
        ratio_BT, bounds = self.ratio(logp_BT, batch), self.bounds(batch)
        zone = bounds if self.zone == "adapted" else (self.clip_low, self.clip_high)
        moved_BT = redistribute(adv_BT, self.signal(batch), ratio_BT.detach(), *zone, self.beta)
        return clipped_surrogate(ratio_BT, moved_BT, *bounds, dual=self.dual_clip)
