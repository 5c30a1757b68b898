"""Accumulated attention and its best keys in Triton; no matrix of queries by keys is ever written.

Each program owns a block of keys and visits all queries that read it, so nothing is added by atomics. The best keys are
found by rank: a key is kept where fewer than ``count`` others beat it, earlier ones on equal scores. The readable
reference is ``importance.py``.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.kinds.kernel.triton_support import block_rows, padded_width

RANK_TILE = 64


@triton.jit
def _importance(query_ptr, key_ptr, lse_ptr, start_ptr, out_ptr, heads, groups, queries, keys, width, scale,
                BLOCK: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """What one block of keys received from all heads and queries. Grid: rows, blocks of keys."""
    row, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK
    column, step, dims = first + tl.arange(0, BLOCK), tl.arange(0, BLOCK), tl.arange(0, WIDE)
    start, total = tl.load(start_ptr + row), tl.zeros([BLOCK], tl.float32)
    for head in range(heads):
        key_row = (row * groups + head // (heads // groups)) * keys + column
        key_mask = (column < keys)[:, None] & (dims < width)[None, :]
        key = tl.load(key_ptr + key_row[:, None] * width + dims[None, :], key_mask, other=0.0)
        # Query t stands at place keys - queries + t; only those from the block's first place on read it.
        for begin in range(tl.maximum(first - (keys - queries), 0), queries, BLOCK):
            place = begin + step
            query_row = (row * heads + head) * queries + place
            query_mask = (place < queries)[:, None] & (dims < width)[None, :]
            query = tl.load(query_ptr + query_row[:, None] * width + dims[None, :], query_mask, other=0.0)
            lse = tl.load(lse_ptr + query_row, place < queries, other=0.0)
            seen = (column[None, :] <= (keys - queries + place)[:, None]) & (column >= start)[None, :]
            seen = seen & (place < queries)[:, None] & (column < keys)[None, :]
            logits = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
            total += tl.sum(tl.exp(tl.where(seen, logits - lse[:, None], float("-inf"))), 0)
    tl.store(out_ptr + row * keys + column, total, column < keys)


@triton.jit
def _keep(score_ptr, count_ptr, out_ptr, keys, TILE: tl.constexpr):
    """Whether each key of a tile is among the best of its row. Grid: rows, tiles."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * TILE + tl.arange(0, TILE)
    score = tl.load(score_ptr + row * keys + place, place < keys, other=float("-inf"))
    better = tl.zeros([TILE], tl.int32)
    for start in range(0, keys, TILE):
        other = start + tl.arange(0, TILE)
        rival = tl.load(score_ptr + row * keys + other, other < keys, other=float("-inf"))
        earlier = (rival[:, None] == score[None, :]) & (other[:, None] < place[None, :])
        wins = ((rival[:, None] > score[None, :]) | earlier) & (other < keys)[:, None]
        better += tl.sum(wins.to(tl.int32), 0)
    tl.store(out_ptr + row * keys + place, (better < tl.load(count_ptr + row)).to(tl.int8), place < keys)


def triton_importance(query_BHTD: Tensor, key_BGND: Tensor, lse_BHT: Tensor, start_B: Tensor, scale: float) -> Tensor:
    """Probability that each key received from all queries and heads, ``[B, N]`` float32."""
    (rows, heads, queries, width), (groups, keys) = query_BHTD.shape, key_BGND.shape[1:3]
    out = torch.empty(rows, keys, device=key_BGND.device)
    given = [x.contiguous() for x in (query_BHTD, key_BGND, lse_BHT.float(), start_B)]
    block = block_rows(width, key_BGND.dtype)
    sizes = (heads, groups, queries, keys, width, scale)
    _importance[(rows, triton.cdiv(keys, block))](*given, out, *sizes, block, padded_width(width))
    return out


def triton_keep(score_BN: Tensor, count_B: Tensor) -> Tensor:
    """True for the ``count_B`` highest scores of each row, ``[B, N]``; of equal ones the earlier are kept."""
    rows, keys = score_BN.shape
    out = torch.empty(rows, keys, dtype=torch.int8, device=score_BN.device)
    _keep[(rows, triton.cdiv(keys, RANK_TILE))](score_BN.contiguous(), count_B.contiguous(), out, keys, RANK_TILE)
    return out.bool()
