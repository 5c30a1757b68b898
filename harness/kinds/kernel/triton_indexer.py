"""The indexer's scores in Triton: keys are read where they lie, by block; no copy of the chosen ones is made.

The readable reference is ``plain_block_scores`` in ``indexer.py``.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.kinds.kernel.indexer import Indexing
from harness.kinds.kernel.triton_support import padded_width


@triton.jit
def _scores(query_ptr, gate_ptr, key_ptr, start_ptr, stop_ptr, block_ptr, out_ptr, queries, heads, keys, width, blocks,
            BLOCK: tl.constexpr, TILE: tl.constexpr, HEADS: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Scores of one block for one query. Grid: queries of all sequences, blocks a query."""
    row, slot = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place = tl.load(block_ptr + row * blocks + slot)
    head, column, offset = tl.arange(0, HEADS), tl.arange(0, WIDE), tl.arange(0, TILE)
    key = place * BLOCK + offset
    stop = tl.minimum(tl.load(stop_ptr + row), keys)
    # A block of -1 lies before every key that is seen.
    seen = (offset < BLOCK) & (key >= tl.load(start_ptr + row)) & (key < stop)
    query_tile = tl.load(
        query_ptr + (row * heads + head[:, None]) * width + column[None, :],
        mask=(head < heads)[:, None] & (column < width)[None, :],
        other=0.0,
    )
    key_tile = tl.load(
        key_ptr + (row // queries * keys + key[:, None]) * width + column[None, :],
        mask=seen[:, None] & (column < width)[None, :],
        other=0.0,
    )
    gate = tl.load(gate_ptr + row * heads + head, mask=head < heads, other=0.0).to(tl.float32)
    product = tl.dot(query_tile, tl.trans(key_tile), input_precision="ieee")
    score = tl.sum(tl.maximum(product, 0.0) * gate[:, None], 0)
    tl.store(out_ptr + (row * blocks + slot) * BLOCK + offset, tl.where(seen, score, float("-inf")), offset < BLOCK)


def triton_block_scores(asked: Indexing, key_SND: Tensor, block_SMC: Tensor, block: int) -> Tensor:
    """Scores of the keys in the given blocks, ``[S, M, C * B]`` float32; -inf for keys that a query does not see."""
    sequences, queries, heads, width = asked.query_SMHD.shape
    blocks = block_SMC.shape[2]
    given = (asked.query_SMHD, asked.gate_SMH, key_SND, asked.start_SM, asked.stop_SM, block_SMC)
    out = torch.empty(sequences, queries, blocks * block, device=key_SND.device)
    sizes = (queries, heads, key_SND.shape[1], width, blocks)
    tile = (block, padded_width(block), padded_width(heads), padded_width(width))
    _scores[(sequences * queries, blocks)](*(x.contiguous() for x in given), out, *sizes, *tile)
    return out
