"""Joins attention over disjoint sets of keys into attention over their union."""

from __future__ import annotations

import torch
from torch import Tensor


def merge_lse(*parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Merge ``(out [..., D], lse [...])`` of disjoint key sets; returns the same pair for the union.

    l = log sum_i exp(l_i) and o = sum_i exp(l_i - l) o_i. A part without keys has l = -inf and adds nothing, whatever
    stands in its output; where all parts are empty the result is 0 with l = -inf. Sums run in float32 or better, and
    the output has the parts' type.
    """
    kind = torch.promote_types(parts[0][0].dtype, torch.float32)
    lse_K = torch.stack([lse.to(kind) for _, lse in parts])
    # A finite floor for the maximum: -inf minus -inf would be NaN where no part has keys.
    top = lse_K.detach().amax(0).clamp(min=torch.finfo(kind).min)
    weight_K = torch.exp(lse_K - top)
    total = weight_K.sum(0)
    share_K = weight_K / total.clamp(min=torch.finfo(kind).tiny)
    merged = torch.zeros_like(parts[0][0], dtype=kind)
    for (out, lse), share in zip(parts, share_K, strict=True):
        used = out.to(kind).masked_fill(torch.isneginf(lse).unsqueeze(-1), 0.0)
        merged = merged + share.unsqueeze(-1) * used
    return merged.to(parts[0][0].dtype), top + torch.log(total)
