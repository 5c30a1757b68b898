"""The stages that objectives share, as pure functions of tensors: advantages, surrogates and aggregations."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from harness.errors import Refused

LOG_RATIO_LIMIT = 20.0
"""Log ratios beyond this are cut before the exponential, as the common libraries do."""

Scale = Literal["group", "none"]
Mode = Literal["seq", "token", "const", "seq_sum", "group_token"]
Bound = float | Tensor


def group_index(group_ids_B: Tensor) -> tuple[Tensor, int]:
    """Each row's group as a number from 0, and how many groups there are."""
    unique, inverse_B = torch.unique(group_ids_B, return_inverse=True)
    return inverse_B, len(unique)


def group_sum(values_B: Tensor, group_B: Tensor, groups: int) -> Tensor:
    """Sums by group, ``[groups]``; ``group_B`` is the index of :func:`group_index`."""
    return values_B.new_zeros(groups).index_add(0, group_B, values_B)


def zero_groups(rewards_B: Tensor, group_ids_B: Tensor) -> Tensor:
    """True for groups whose rewards are all equal, ``[groups]``; groups of one response are among them."""
    group_B, groups = group_index(group_ids_B)
    low = rewards_B.new_full((groups,), float("inf")).scatter_reduce(0, group_B, rewards_B, "amin")
    high = rewards_B.new_full((groups,), float("-inf")).scatter_reduce(0, group_B, rewards_B, "amax")
    return low == high


def group_normalize(rewards_B: Tensor, group_ids_B: Tensor, scale: Scale = "group", eps: float = 1e-4) -> Tensor:
    """Advantages ``A_i = (R_i - mean_g) / (std_g + eps)``, ``[B]``, with the unbiased standard deviation.

    ``scale`` "none" leaves the division out. Groups with equal rewards, and groups of one response, get exactly 0.
    """
    group_B, groups = group_index(group_ids_B)
    count = group_sum(torch.ones_like(rewards_B), group_B, groups)
    mean = group_sum(rewards_B, group_B, groups) / count
    centred_B = rewards_B - mean[group_B]
    centred_B = torch.where(zero_groups(rewards_B, group_ids_B)[group_B], torch.zeros_like(centred_B), centred_B)
    if scale == "none":
        return centred_B
    std = (group_sum(centred_B.square(), group_B, groups) / (count - 1).clamp(min=1)).sqrt()
    return centred_B / (std + eps)[group_B]


def ratios(logp_BT: Tensor, old_BT: Tensor) -> Tensor:
    """``r = exp(logp - old)``, its logarithm cut at 20."""
    return (logp_BT - old_BT).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def clipped_surrogate(
    ratio_BT: Tensor, adv_BT: Tensor, clip_low: Bound, clip_high: Bound, dual: float | None = None
) -> Tensor:
    """Per-token loss ``-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)``, ``[B, T]``.

    Where ``A < 0`` it is at most ``-dual A``, which stops the gradient of far too likely bad tokens; None for no limit.
    """
    low, high = (
        torch.as_tensor(b, dtype=ratio_BT.dtype, device=ratio_BT.device) for b in (1 - clip_low, 1 + clip_high)
    )
    loss_BT = -torch.minimum(ratio_BT * adv_BT, ratio_BT.clamp(low, high) * adv_BT)
    return loss_BT if dual is None else torch.where(adv_BT < 0, torch.minimum(loss_BT, -dual * adv_BT), loss_BT)


def clip_fractions(
    ratio_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor, clip_low: Bound, clip_high: Bound
) -> tuple[float, float]:
    """Part of the tokens whose gradient the lower and the upper bound removes."""
    tokens = mask_BT.sum().clamp(min=1)
    low = ((adv_BT < 0) & (ratio_BT < 1 - clip_low) & mask_BT).sum() / tokens
    high = ((adv_BT > 0) & (ratio_BT > 1 + clip_high) & mask_BT).sum() / tokens
    return float(low), float(high)


def masked(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The values with 0 where the mask is false, whatever stood there."""
    return torch.where(mask_BT, values_BT, torch.zeros_like(values_BT))


def aggregate(
    loss_BT: Tensor, mask_BT: Tensor, mode: Mode, group_ids_B: Tensor | None = None, l_max: int | None = None
) -> Tensor:
    """The scalar loss of per-token losses; ``n_i`` are the lengths, ``N`` the number of responses.

    ``seq``: mean over responses of their token means (an empty response adds 0 and counts in ``N``). ``token``: mean
    over all tokens. ``const``: sum over ``N * l_max``. ``seq_sum``: sum over ``N``. ``group_token``: mean over groups
    of their token means. ``const`` needs ``l_max``, ``group_token`` needs ``group_ids_B``.
    """
    sum_B = masked(loss_BT, mask_BT).sum(1)
    count_B = mask_BT.sum(1).to(loss_BT.dtype)
    if mode == "seq":
        return (sum_B / count_B.clamp(min=1)).mean()
    if mode == "token":
        return sum_B.sum() / count_B.sum().clamp(min=1)
    if mode == "seq_sum":
        return sum_B.mean()
    if mode == "const":
        if l_max is None:
            raise ValueError("aggregation 'const' needs l_max")
        return sum_B.mean() / l_max
    if group_ids_B is None:
        raise ValueError("aggregation 'group_token' needs group_ids_B")
    group_B, groups = group_index(group_ids_B)
    return (group_sum(sum_B, group_B, groups) / group_sum(count_B, group_B, groups).clamp(min=1)).mean()


def response_advantage(adv_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The one advantage of each response, ``[B]``; refuses advantages that change sign within a response.

    Token-level advantages of one sign are averaged. An empty response has the value that stands in its row's padding.
    """
    if bool((masked(adv_BT, mask_BT) > 0).any(1).logical_and((masked(adv_BT, mask_BT) < 0).any(1)).any()):
        raise Refused("advantages of both signs within one response; this aggregation needs one sign a response")
    count_B = mask_BT.sum(1)
    mean_B = masked(adv_BT, mask_BT).sum(1) / count_B.clamp(min=1)
    return torch.where(count_B > 0, mean_B, adv_BT[:, 0])


def effective_tokens(weight_BT: Tensor) -> Tensor:
    """``(sum w)^2 / sum w^2``: how many equally weighted tokens carry as much; 0 where all weights are 0."""
    total = weight_BT.abs().sum()
    return total.square() / weight_BT.square().sum().clamp(min=torch.finfo(weight_BT.dtype).tiny)
