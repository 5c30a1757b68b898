"""Attention of decoding over chosen slots of a pool that many requests share, and the scores that choose them.

Shapes: ``B`` requests with one query each, ``H`` query heads, ``G`` key/value heads, ``P`` slots of the pool, ``K``
slots a request reads; -1 is no slot, wherever it stands. Query head h reads key/value head h // (H / G).
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.kinds.kernel.triton_support import prefers_triton


def _chosen(pool_PGD: Tensor, slot_BK: Tensor) -> Tensor:
    """Rows of the pool as ``[B, G, K, D]`` float32."""
    return pool_PGD[slot_BK.clamp(min=0)].transpose(1, 2).float()


def plain_paged_scores(query_BHD: Tensor, key_PGD: Tensor, slot_BK: Tensor) -> Tensor:
    """Products ``[B, H, K]`` float32 of each query with the keys of its slots, not scaled; -inf where there is none."""
    grouped = query_BHD.float().unflatten(1, (key_PGD.shape[1], -1))
    product: Tensor = (grouped @ _chosen(key_PGD, slot_BK).transpose(2, 3)).flatten(1, 2)
    return product.masked_fill(slot_BK[:, None] < 0, -torch.inf)


def plain_paged_attention(
    query_BHD: Tensor, key_PGD: Tensor, value_PGD: Tensor, slot_BK: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """``(out [B, H, D], lse [B, H])`` over the slots; a request without any has 0 and -inf."""
    logits = plain_paged_scores(query_BHD, key_PGD, slot_BK) * scale
    lse = logits.logsumexp(-1)
    weight = torch.exp(logits - lse.clamp(min=torch.finfo(lse.dtype).min)[..., None])
    grouped = weight.unflatten(1, (key_PGD.shape[1], -1))
    return (grouped @ _chosen(value_PGD, slot_BK)).flatten(1, 2).to(query_BHD.dtype), lse


def paged_scores(query_BHD: Tensor, key_PGD: Tensor, slot_BK: Tensor) -> Tensor:
    """:func:`plain_paged_scores`, in Triton where that compiles."""
    if prefers_triton(key_PGD.device, key_PGD.dtype):
        from harness.kinds.kernel.triton_paged import triton_paged_scores

        return triton_paged_scores(query_BHD, key_PGD, slot_BK)
    return plain_paged_scores(query_BHD, key_PGD, slot_BK)


def paged_attention(
    query_BHD: Tensor, key_PGD: Tensor, value_PGD: Tensor, slot_BK: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """:func:`plain_paged_attention`, in Triton where that compiles."""
    if prefers_triton(key_PGD.device, key_PGD.dtype):
        from harness.kinds.kernel.triton_paged import triton_paged_attention

        return triton_paged_attention(query_BHD, key_PGD, value_PGD, slot_BK, scale)
    return plain_paged_attention(query_BHD, key_PGD, value_PGD, slot_BK, scale)
