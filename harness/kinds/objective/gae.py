"""Advantages from a critic: generalized advantage estimation as a pure function, and the losses around it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from harness.kinds.objective.stages import masked

Bootstrap = Literal["zero", "last_value"] | Tensor


def outcome_at_end(rewards_B: Tensor, mask_BT: Tensor) -> Tensor:
    """The outcome reward on the last token of each response, 0 elsewhere, ``[B, T]``."""
    after_BT = mask_BT.flip(1).cumsum(1).flip(1)
    return torch.where(mask_BT & (after_BT == 1), rewards_B[:, None], torch.zeros_like(rewards_B)[:, None])


def gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float, lam: float, bootstrap: Bootstrap = "zero"
) -> tuple[Tensor, Tensor]:
    """Advantages and returns ``[B, T]``, 0 where the mask is false; masked positions are stepped over.

    ``d_t = r_t + gamma V_{t+1} - V_t``, ``A_t = d_t + gamma lam A_{t+1}``, return ``A_t + V_t``. ``V`` after the last
    token is what ``bootstrap`` says: 0, the value before that token (for responses that go on), or a number a row.
    """
    rewards_BT, values_BT = masked(rewards_BT, mask_BT), masked(values_BT, mask_BT)
    if isinstance(bootstrap, Tensor):
        next_B = bootstrap.to(values_BT)
    elif bootstrap == "zero":
        next_B = values_BT.new_zeros(len(values_BT))
    else:
        next_B = outcome_at_end(values_BT.new_ones(len(values_BT)), mask_BT).mul(values_BT).sum(1)
    adv_B = torch.zeros_like(next_B)
    found = []
    for t in range(values_BT.shape[1] - 1, -1, -1):
        here_B = mask_BT[:, t]
        delta_B = rewards_BT[:, t] + gamma * next_B - values_BT[:, t]
        adv_B = torch.where(here_B, delta_B + gamma * lam * adv_B, adv_B)
        next_B = torch.where(here_B, values_BT[:, t], next_B)
        found.append(adv_B)
    adv_BT = masked(torch.stack(found[::-1], 1), mask_BT)
    return adv_BT, adv_BT + values_BT


def whiten(values_BT: Tensor, mask_BT: Tensor, eps: float = 1e-8) -> Tensor:
    """Valid values with mean 0 and variance 1 over the batch, ``[B, T]``; the variance is the unbiased one."""
    count = mask_BT.sum().clamp(min=1)
    centred_BT = masked(values_BT - masked(values_BT, mask_BT).sum() / count, mask_BT)
    variance = centred_BT.square().sum() / (count - 1).clamp(min=1)
    return centred_BT * torch.rsqrt(variance + eps)


def clipped_value_loss(
    values_BT: Tensor, old_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor, clip: float | None
) -> Tensor:
    """``max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2) / 2``, mean over tokens; 0 where there are none."""
    error_BT = (values_BT - returns_BT).square()
    if clip is not None:
        near_BT = torch.minimum(torch.maximum(values_BT, old_BT - clip), old_BT + clip)
        error_BT = torch.maximum(error_BT, (near_BT - returns_BT).square())
    return 0.5 * masked(error_BT, mask_BT).sum() / mask_BT.sum().clamp(min=1)
