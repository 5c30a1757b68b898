"""Attention of few queries as two matrix products a group of heads, over all live slots or over selected ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from harness.subjects.views import Selection

WIDENED_QUERIES, WIDENED_SLOTS = 8, 1024
"""Up to so many query tokens over fewer slots, a CPU is faster when it widens half precision to float32 first."""

HEADWISE_SLOTS = 4096
"""From so many slots on, a CPU multiplies half precision faster head by head than after copying live slots together."""

CHUNKED_SLOTS, CHUNK = 16384, 4096
"""From so many slots on, a CPU multiplies float32 faster in chunks, whose copies by the library stay in its caches."""


def grouped_attention(
    query_BHTD: Tensor, key_BGND: Tensor, value_BGND: Tensor, mask: Tensor | None, scaling: float, softcap: float | None
) -> Tensor:
    """Attention without repeating key/value heads; returns ``[B, H, T, D]``. For few queries."""
    batch, heads, num_queries, width = query_BHTD.shape
    groups = key_BGND.shape[1]
    per_group = heads // groups
    query = query_BHTD.reshape(batch, groups, per_group * num_queries, width) * scaling
    logits = _product(query, key_BGND.transpose(2, 3))
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if mask is not None:
        shaped = logits.view(batch, groups, per_group, num_queries, -1)
        logits = shaped.masked_fill(~mask.unsqueeze(2), float("-inf")).view_as(logits)
    weights = torch.softmax(logits, -1, dtype=torch.float32).to(query.dtype)
    return _product(weights, value_BGND).view(batch, heads, num_queries, -1)


def _product(left_BGRK: Tensor, right_BGKN: Tensor) -> Tensor:
    """``left @ right``; head by head where the library would copy long live slots into place first, or in chunks."""
    size = chunk_size(left_BGRK, max(right_BGKN.shape[2:]))
    if size < right_BGKN.shape[3]:
        return torch.cat([left_BGRK @ part for part in right_BGKN.split(size, 3)], -1)
    if size < right_BGKN.shape[2]:
        parts = zip(left_BGRK.split(size, 3), right_BGKN.split(size, 2), strict=True)
        return torch.stack([left @ right for left, right in parts]).sum(0)
    if not _half_on_cpu(left_BGRK) or max(right_BGKN.shape[2:]) < HEADWISE_SLOTS:
        return left_BGRK @ right_BGKN
    flat = zip(left_BGRK.flatten(0, 1), right_BGKN.flatten(0, 1), strict=True)
    product: Tensor = torch.stack([left @ right for left, right in flat]).unflatten(0, left_BGRK.shape[:2])
    return product


def chunk_size(states: Tensor, slots: int) -> int:
    """Slots that are multiplied at one time."""
    chunked = states.device.type == "cpu" and states.dtype == torch.float32 and slots >= CHUNKED_SLOTS
    return CHUNK if chunked else slots


@contextmanager
def long_cache_kernels(states: Tensor, slots: int) -> Iterator[None]:
    """oneDNN for products with a long cache: forwards of a single row turn it off, for the sake of linear layers."""
    if not _half_on_cpu(states) or slots < WIDENED_SLOTS:
        yield
        return
    before = torch.backends.mkldnn.set_flags(True)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before[0])


def _half_on_cpu(states: Tensor) -> bool:
    return states.device.type == "cpu" and states.dtype in (torch.bfloat16, torch.float16)


def quickest(query_BHTD: Tensor, key_BGND: Tensor, value_BGND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The states as this device multiplies them fastest: as they are, widened, or with live slots copied together."""
    slots = key_BGND.shape[2]
    if not _half_on_cpu(query_BHTD) or slots >= HEADWISE_SLOTS:
        return query_BHTD, key_BGND, value_BGND
    if query_BHTD.shape[2] <= WIDENED_QUERIES and slots < WIDENED_SLOTS:
        return query_BHTD.float(), key_BGND.float(), value_BGND.float()
    return query_BHTD, key_BGND.contiguous(), value_BGND.contiguous()


def selected_attention(
    query_BHTD: Tensor,
    key_BGND: Tensor,
    value_BGND: Tensor,
    allowed: Tensor | None,
    chosen: Selection,
    scaling: float,
    softcap: float | None,
) -> Tensor:
    """Attention of each query over its own slots, ``[B, H, T, D]``. A single query gathers them, several are masked."""
    num_heads, groups = query_BHTD.shape[1], key_BGND.shape[1]
    index, valid = chosen.index_BSTK, chosen.valid_BSTK
    # A set for each query head makes every head a group of its own.
    sets = num_heads if index.shape[1] > groups else groups
    if query_BHTD.shape[2] == 1:
        key, value = (gathered(states, index[:, :, 0].expand(-1, sets, -1)) for states in (key_BGND, value_BGND))
        mask = None if valid is None else valid.expand(-1, sets, -1, -1)
        return grouped_attention(*quickest(query_BHTD, key, value), mask, scaling, softcap).to(query_BHTD.dtype)
    used = torch.ones_like(index) if valid is None else valid.long()
    slots = index.new_zeros(*index.shape[:3], key_BGND.shape[2])
    mask = slots.scatter_add_(3, index, used) > 0
    if allowed is not None:
        # Where both differ by head, the allowed slots do so by key/value head.
        mask = mask & (allowed if allowed.shape[1] == 1 else allowed.repeat_interleave(sets // allowed.shape[1], 1))
    key, value = (states.repeat_interleave(sets // groups, 1) for states in (key_BGND, value_BGND))
    return grouped_attention(query_BHTD, key, value, mask, scaling, softcap)


def gathered(states_BGND: Tensor, index_BSK: Tensor) -> Tensor:
    """Rows of each set's key/value head, ``[B, S, K, D]``; copied row by row, faster than gathering numbers."""
    batch, sets, _ = index_BSK.shape
    per_set = sets // states_BGND.shape[1]
    rows = [states_BGND[b, s // per_set].index_select(0, index_BSK[b, s]) for b in range(batch) for s in range(sets)]
    gathered: Tensor = torch.stack(rows).unflatten(0, (batch, sets))
    return gathered
