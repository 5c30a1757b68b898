"""Accumulated attention: how much probability each key has received, and the keys that received most.

Shapes: ``B`` rows, ``H`` query heads, ``G`` key/value heads, ``T`` queries, which are the last of ``N`` keys and read
causally from ``start_B`` on (padding stands on the left). Query head h reads key/value head h // (H / G).
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.kinds.kernel.triton_support import prefers_triton


def causal_logits(query_BHTD: Tensor, key_BGND: Tensor, start_B: Tensor, scale: float) -> Tensor:
    """Scaled logits ``[B, H, T, N]`` float32; -inf where a query may not read. Rows of padding read nothing."""
    queries, keys = query_BHTD.shape[2], key_BGND.shape[2]
    key = key_BGND.repeat_interleave(query_BHTD.shape[1] // key_BGND.shape[1], 1)
    place = torch.arange(keys, device=key.device)
    seen = (place <= place[keys - queries :, None]) & (place >= start_B[:, None, None, None])
    return (query_BHTD.float() @ key.float().transpose(2, 3) * scale).masked_fill(~seen, -torch.inf)


def plain_importance(query_BHTD: Tensor, key_BGND: Tensor, lse_BHT: Tensor, start_B: Tensor, scale: float) -> Tensor:
    """Probability that each key received from all queries and heads, ``[B, N]`` float32.

    ``lse_BHT`` are the log-sum-exps of the attention's rows; those of padding may hold anything.
    """
    logits = causal_logits(query_BHTD, key_BGND, start_B, scale)
    weight = torch.exp(logits - lse_BHT.float()[..., None])
    return weight.masked_fill(logits == -torch.inf, 0.0).sum((1, 2))


def plain_keep(score_BN: Tensor, count_B: Tensor) -> Tensor:
    """True for the ``count_B`` highest scores of each row, ``[B, N]``; of equal ones the earlier are kept."""
    order = score_BN.argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(-1)
    return rank < count_B[:, None]


QUERY_TILE = 128


def tiled_importance(query_BHTD: Tensor, key_BGND: Tensor, lse_BHT: Tensor, start_B: Tensor, scale: float) -> Tensor:
    """:func:`plain_importance` over some queries at a time and the keys they read: no whole matrix exists."""
    queries, keys = query_BHTD.shape[2], key_BGND.shape[2]
    total = torch.zeros(len(key_BGND), keys, device=key_BGND.device)
    for first in range(0, queries, QUERY_TILE):
        rows = slice(first, min(first + QUERY_TILE, queries))
        seen = slice(0, keys - queries + rows.stop)
        part = query_BHTD[:, :, rows], key_BGND[:, :, seen], lse_BHT[:, :, rows]
        total[:, seen] += plain_importance(*part, start_B, scale)
    return total


def importance(query_BHTD: Tensor, key_BGND: Tensor, lse_BHT: Tensor, start_B: Tensor, scale: float) -> Tensor:
    """:func:`tiled_importance`, or in Triton where that compiles."""
    if prefers_triton(key_BGND.device, key_BGND.dtype):
        from harness.kinds.kernel.triton_importance import triton_importance

        return triton_importance(query_BHTD, key_BGND, lse_BHT, start_B, scale)
    return tiled_importance(query_BHTD, key_BGND, lse_BHT, start_B, scale)


def keep(score_BN: Tensor, count_B: Tensor) -> Tensor:
    """:func:`plain_keep`, in Triton where that compiles."""
    if prefers_triton(score_BN.device, score_BN.dtype):
        from harness.kinds.kernel.triton_importance import triton_keep

        return triton_keep(score_BN, count_B)
    return plain_keep(score_BN, count_B)
