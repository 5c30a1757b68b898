"""Attention of a packed row in one call: torch's under the block mask, or a Triton kernel that knows the layout."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from harness.kinds.kernel.packing import Layout
from harness.kinds.kernel.triton_support import require_triton


def masked_attention(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    """One softmax over the whole row under the block mask: simple, and quadratic in the row."""
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=layout.mask_TT, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )


def fused_attention(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    """One Triton kernel forward and two backward. Raises :class:`harness.errors.Refused` where they cannot run."""
    require_triton(query.device, query.dtype)
    from harness.kinds.kernel.triton_dualkv import FusedGroupAttention

    out: Tensor = FusedGroupAttention.apply(query, key, value, layout, scale)  # type: ignore[no-untyped-call]
    return out
