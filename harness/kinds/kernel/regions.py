"""Attention of queries to one region of keys, with its log-sum-exp, forward and backward.

The backward takes the output and log-sum-exp of the whole softmax, of which the region may be a part only: with them
P = exp(S - lse) is the region's share of the true weights and delta = sum(dO * O) the true correction, so that the
gradients of several regions simply add up. On a CPU both run in torch's fused kernel; elsewhere as plain products.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _repeat(x_BGND: Tensor, heads: int) -> Tensor:
    repeats = heads // x_BGND.shape[1]
    return x_BGND if repeats == 1 else x_BGND.repeat_interleave(repeats, 1)


def _fold(x_BHTD: Tensor, groups: int) -> Tensor:
    """The queries of a key/value head's group one after the other: ``[B, G, H/G * T, D]``."""
    return x_BHTD.reshape(x_BHTD.shape[0], groups, -1, x_BHTD.shape[-1])


def _logits(query: Tensor, key: Tensor, causal: bool, scale: float) -> Tensor:
    kind = torch.promote_types(query.dtype, torch.float32)
    logits = query.to(kind) @ key.to(kind).transpose(-1, -2) * scale
    if causal:
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(later, float("-inf"))
    return logits


def plain_forward(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """``(out [B, H, T, D], lse [B, H, T])`` with the logits written out. Heads of query and key are equal in number."""
    logits = _logits(query, key, causal, scale)
    lse = logits.logsumexp(-1)
    weights = torch.exp(logits - lse.unsqueeze(-1))
    return (weights @ value.to(weights.dtype)).to(query.dtype), lse


def plain_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the region's query, key and value, with the logits written out."""
    kind = lse.dtype
    weights = torch.exp(_logits(query, key, causal, scale) - lse.unsqueeze(-1))
    delta = (grad.to(kind) * out.to(kind)).sum(-1, keepdim=True)
    slope = weights * (grad.to(kind) @ value.to(kind).transpose(-1, -2) - delta) * scale
    d_query, d_key = slope @ key.to(kind), slope.transpose(-1, -2) @ query.to(kind)
    d_value = weights.transpose(-1, -2) @ grad.to(kind)
    return d_query.to(query.dtype), d_key.to(key.dtype), d_value.to(value.dtype)


def region_forward(
    query_BHTD: Tensor, key_BGND: Tensor, value_BGND: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """``(out [B, H, T, D], lse [B, H, T])``; query head h reads key/value head h // (H / G).

    ``causal`` (T = N): key n is seen by queries n and later. Otherwise every query sees all N keys, and the
    key/value heads are not repeated. T and N are 1 or more: the fused kernel ends the process on an empty one.
    """
    if not query_BHTD.shape[2] or not key_BGND.shape[2]:
        raise ValueError("a region needs a query and a key; leave an empty one out of the merge")
    if causal:
        heads = query_BHTD.shape[1]
        query, key, value = query_BHTD, _repeat(key_BGND, heads), _repeat(value_BGND, heads)
    else:
        query, key, value = _fold(query_BHTD, key_BGND.shape[1]), key_BGND, value_BGND
    if query.device.type == "cpu":
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = fused(query, key, value, 0.0, causal, scale=scale)
    else:
        out, lse = plain_forward(query, key, value, causal, scale)
    return out.reshape(query_BHTD.shape), lse.reshape(query_BHTD.shape[:-1])


def region_backward(
    grad_BHTD: Tensor,
    query_BHTD: Tensor,
    key_BGND: Tensor,
    value_BGND: Tensor,
    out_BHTD: Tensor,
    lse_BHT: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value ``[B, H, T, D]``, ``[B, G, N, D]`` twice; grouped heads are summed.

    ``out`` and ``lse`` belong to the whole softmax. A row with ``lse = inf`` is padding and passes no gradient.
    """
    batch, heads, _, width = query_BHTD.shape
    groups = key_BGND.shape[1]
    if causal:
        query, grad, out, lse = query_BHTD, grad_BHTD, out_BHTD, lse_BHT
        key, value = _repeat(key_BGND, heads), _repeat(value_BGND, heads)
    else:
        query, grad, out = (_fold(x, groups) for x in (query_BHTD, grad_BHTD, out_BHTD))
        key, value, lse = key_BGND, value_BGND, lse_BHT.reshape(batch, groups, -1)
    if query.device.type == "cpu":
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        d_query, d_key, d_value = fused(grad, query, key, value, out, lse, 0.0, causal, scale=scale)
    else:
        d_query, d_key, d_value = plain_backward(grad, query, key, value, out, lse, causal, scale)
    if causal and groups != heads:
        shape = (batch, groups, heads // groups, -1, width)
        d_key, d_value = d_key.reshape(shape).sum(2), d_value.reshape(shape).sum(2)
    return d_query.reshape(query_BHTD.shape), d_key, d_value
