"""Scores and attention over chosen slots in Triton: each key/value head is read once for its group of query heads.

Long lists are cut into spans of slots, one program each; the parts are merged by their log-sum-exp. The readable
reference is ``paged.py``.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.kinds.kernel.merge import merge_lse
from harness.kinds.kernel.triton_support import padded_width

TILE = 32
SPAN = 8 * TILE
"""Slots of one program of the attention."""


@triton.jit
def _query(query_ptr, request, group, heads, groups, width, HEADS: tl.constexpr, WIDE: tl.constexpr):
    """Queries ``[HEADS, WIDE]`` of the group's heads; 0 beyond them. Also the heads and which of them exist."""
    head, column = tl.arange(0, HEADS), tl.arange(0, WIDE)
    own = head < heads // groups
    row = request * heads + group * (heads // groups) + head
    mask = own[:, None] & (column < width)[None, :]
    return tl.load(query_ptr + row[:, None] * width + column[None, :], mask=mask, other=0.0), row, own


@triton.jit
def _rows(pool_ptr, slot_ptr, request, group, place, slots, groups, width, WIDE: tl.constexpr):
    """Rows ``[TILE, WIDE]`` of the pool at these places of the request's list, and which of them exist."""
    slot = tl.load(slot_ptr + request * slots + place, mask=place < slots, other=-1)
    column = tl.arange(0, WIDE)
    mask = (slot >= 0)[:, None] & (column < width)[None, :]
    row = slot * groups + group
    return tl.load(pool_ptr + row[:, None] * width + column[None, :], mask=mask, other=0.0), slot >= 0


@triton.jit
def _scores(query_ptr, key_ptr, slot_ptr, out_ptr, heads, groups, width, slots,
            TILE: tl.constexpr, HEADS: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Products of a group's queries with a tile of its slots. Grid: requests, key/value heads, tiles."""
    request, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place = tl.program_id(2) * TILE + tl.arange(0, TILE)
    query, row, own = _query(query_ptr, request, group, heads, groups, width, HEADS, WIDE)
    key, found = _rows(key_ptr, slot_ptr, request, group, place, slots, groups, width, WIDE)
    product = tl.dot(query, tl.trans(key), input_precision="ieee")
    product = tl.where(found[None, :], product, float("-inf"))
    tl.store(out_ptr + row[:, None] * slots + place[None, :], product, own[:, None] & (place < slots)[None, :])


@triton.jit
def _attention(query_ptr, key_ptr, value_ptr, slot_ptr, out_ptr, lse_ptr, heads, groups, width, slots, spans, scale,
               SPAN: tl.constexpr, TILE: tl.constexpr, HEADS: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Output and log-sum-exp of a group's queries over one span. Grid: requests, key/value heads, spans."""
    request, group, span = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    query, row, own = _query(query_ptr, request, group, heads, groups, width, HEADS, WIDE)
    top = tl.full([HEADS], -1e30, tl.float32)
    total, out = tl.zeros([HEADS], tl.float32), tl.zeros([HEADS, WIDE], tl.float32)
    for start in range(span * SPAN, tl.minimum((span + 1) * SPAN, slots), TILE):
        place = start + tl.arange(0, TILE)
        key, found = _rows(key_ptr, slot_ptr, request, group, place, slots, groups, width, WIDE)
        value, found = _rows(value_ptr, slot_ptr, request, group, place, slots, groups, width, WIDE)
        logits = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        logits = tl.where(found[None, :], logits, float("-inf"))
        higher = tl.maximum(top, tl.max(logits, 1))
        weight, shrink = tl.exp(logits - higher[:, None]), tl.exp(top - higher)
        total = total * shrink + tl.sum(weight, 1)
        out = out * shrink[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="ieee")
        top = higher
    column, safe = tl.arange(0, WIDE), tl.where(total > 0.0, total, 1.0)
    place = row * spans + span
    mask = own[:, None] & (column < width)[None, :]
    tl.store(out_ptr + place[:, None] * width + column[None, :], out / safe[:, None], mask)
    tl.store(lse_ptr + place, tl.where(total > 0.0, top + tl.log(safe), float("-inf")), own)


def triton_paged_scores(query_BHD: Tensor, key_PGD: Tensor, slot_BK: Tensor) -> Tensor:
    """Products ``[B, H, K]`` float32 of each query with the keys of its slots; -inf where there is none."""
    (requests, heads, width), groups, slots = query_BHD.shape, key_PGD.shape[1], slot_BK.shape[1]
    out = torch.empty(requests, heads, slots, device=key_PGD.device)
    given = [x.contiguous() for x in (query_BHD, key_PGD, slot_BK)]
    tile = (TILE, padded_width(heads // groups), padded_width(width))
    _scores[(requests, groups, triton.cdiv(slots, TILE))](*given, out, heads, groups, width, slots, *tile)
    return out


def triton_paged_attention(
    query_BHD: Tensor, key_PGD: Tensor, value_PGD: Tensor, slot_BK: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """``(out [B, H, D], lse [B, H])`` over the slots; a request without any has 0 and -inf."""
    (requests, heads, width), groups, slots = query_BHD.shape, key_PGD.shape[1], slot_BK.shape[1]
    spans = max(1, triton.cdiv(slots, SPAN))
    out = torch.empty(requests, heads, spans, width, device=key_PGD.device)
    lse = torch.empty(requests, heads, spans, device=key_PGD.device)
    given = [x.contiguous() for x in (query_BHD, key_PGD, value_PGD, slot_BK)]
    tile = (SPAN, TILE, padded_width(heads // groups), padded_width(width))
    _attention[(requests, groups, spans)](*given, out, lse, heads, groups, width, slots, spans, scale, *tile)
    merged, total = merge_lse(*zip(out.unbind(2), lse.unbind(2), strict=True))
    return merged.to(query_BHD.dtype), total
