"""Anchors and explorers: how concentrated a token's attention is says how its gradient behaves.

With a_t the attention of the position that predicts token t, averaged over the heads of one layer,
H_t = -sum_j a_t(j) ln a_t(j) / ln n_t over the n_t positions it may attend to. Low H is an anchor, high H an explorer.
``tokens`` "soft": with u_t the rank of H_t in the batch and s the progress, w_t = exp(kappa (1 - 2s)(1 - 2 u_t)), so
anchors lead at first and explorers at the end; mean 1. The hard choices train a ``share`` of each response's tokens
and nothing else. All else as DAPO.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.objective.dynamic import DynamicSampling
from harness.kinds.objective.stages import masked
from harness.kinds.objective.tokens import every_row, percentile_rank, select_topk, shuffled, token_chance

CLIP = (0.5, 2.0)


def attention_entropy(attention_BNN: Tensor, prompt_mask_BP: Tensor, mask_BT: Tensor) -> Tensor:
    """``H`` in [0, 1] of the positions that predict each response token, ``[B, T]``; 0 where only one is in reach."""
    prompt, width = prompt_mask_BP.shape[1], mask_BT.shape[1]
    query_T = torch.arange(prompt - 1, prompt + width - 1, device=mask_BT.device)
    valid_BN = torch.cat([prompt_mask_BP, torch.ones_like(mask_BT)], 1)
    causal_TN = torch.arange(prompt + width, device=mask_BT.device)[None] <= query_T[:, None]
    reach_BTN = causal_TN & valid_BN[:, None]
    held_BTN = torch.where(reach_BTN, attention_BNN[:, query_T], attention_BNN.new_zeros(()))
    entropy_BT = -torch.xlogy(held_BTN, held_BTN).sum(-1)
    count_BT = reach_BTN.sum(-1)
    return masked(entropy_BT / count_BT.clamp(min=2).to(entropy_BT.dtype).log(), mask_BT & (count_BT > 1))


def scheduled_weights(entropy_BT: Tensor, mask_BT: Tensor, kappa: float, progress: float) -> Tensor:
    """``w`` with mean 1 over the valid tokens, ``[B, T]``."""
    tilt = kappa * (1 - 2 * progress)
    raw_BT = (tilt * (1 - 2 * percentile_rank(entropy_BT, mask_BT))).exp().clamp(*CLIP)
    return raw_BT / (masked(raw_BT, mask_BT).sum() / mask_BT.sum().clamp(min=1))


@method(
    id="attn_entropy",
    kind="objective",
    title="Not all tokens learn alike: anchors and explorers by attention entropy",
    paper="arXiv:2605.07660",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    claims=[
        {
            "metric": "held-out average accuracy",
            "value": 37.40,
            "against": "34.39 DAPO",
            "on": "Qwen3-8B-Base, the strongest setting",
        },
    ],
    details={
        "weights": "reconstruction: the paper's schedule was not found; only that it goes from low to high entropy",
        "kappa": "reconstruction: 0.5; before the mean is taken out, weights are cut to [0.5, 2]",
        "layer": "reconstruction: the middle one",
        "position": "reconstruction: the query that predicts the token, not the token's own",
        "share": "public digests: 0.2; within each response (reconstruction), rounded up",
        "everything else": "as dapo",
    },
)
class AttnEntropy(DynamicSampling):
    """With tokens=soft and kappa=0 it is DAPO."""

    requires = frozenset({"attention"})

    tokens: Literal["soft", "anchors", "explorers", "random", "position_random", "front", "back", "entropy"] = Field(
        "soft", description="weights by schedule, or the only tokens that are trained"
    )
    kappa: float = Field(0.5, ge=0, description="strength of the weights")
    share: float = Field(0.2, gt=0, le=1, description="part of each response that a hard choice trains")
    shuffle: bool = Field(False, description="control: the attention entropies in random places of each response")

    def signal(self, batch):  # type: ignore[no-untyped-def]
        """The attention entropy of each token, ``[B, T]``."""
        found_BT = attention_entropy(batch.attention_BNN, batch.prompt_mask_BP, batch.response_mask_BT)
        return shuffled(found_BT, batch) if self.shuffle else found_BT

    def token_mask(self, batch, adv_BT, progress):  # type: ignore[no-untyped-def]
        """The hard choices."""
        if self.tokens == "soft":
            return None
        mask_BT, chance_BT = batch.response_mask_BT, token_chance(batch)
        place_BT = torch.arange(mask_BT.shape[1], device=mask_BT.device).expand(mask_BT.shape).double()
        if self.tokens == "position_random":
            return same_places(
                select_topk(-self.signal(batch), mask_BT, self.share, every_row(mask_BT)), mask_BT, chance_BT
            )
        score_BT = {
            "anchors": lambda: -self.signal(batch),
            "explorers": lambda: self.signal(batch),
            "random": lambda: chance_BT,
            "front": lambda: -place_BT,
            "back": lambda: place_BT,
            "entropy": lambda: batch.entropy_BT,
        }[self.tokens]()
        return select_topk(score_BT, mask_BT, self.share, every_row(mask_BT))

    def token_weight(self, batch, adv_BT, progress):  # type: ignore[no-untyped-def]
        """The soft schedule."""
        if self.tokens != "soft":
            return None
        return scheduled_weights(self.signal(batch), batch.response_mask_BT, self.kappa, progress)


def same_places(kept_BT: Tensor, mask_BT: Tensor, chance_BT: Tensor) -> Tensor:
    """As many tokens of each position as are kept there, of responses drawn by chance, ``[B, T]``."""
    rank_BT = chance_BT.masked_fill(~mask_BT, 2.0).argsort(dim=0).argsort(dim=0)
    return mask_BT & (rank_BT < kept_BT.sum(0))
