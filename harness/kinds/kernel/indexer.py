"""Scores of an indexer, token by token or inside chosen blocks: sum over its heads of gate times ReLU(q k).

Shapes: ``S`` sequences or key/value heads, ``M`` queries, ``H`` indexer heads that share one key, ``D`` numbers a key,
``N`` keys in blocks of ``B``; the last block may be shorter. A query sees the keys from ``start`` to before ``stop``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.kinds.kernel.triton_support import prefers_triton


@dataclass(frozen=True)
class Indexing:
    """Queries of an indexer: ``query_SMHD``, ``gate_SMH``, and the keys each query sees, ``start_SM``, ``stop_SM``."""

    query_SMHD: Tensor
    gate_SMH: Tensor
    start_SM: Tensor
    stop_SM: Tensor

    def by_block(self, block: int) -> Indexing:
        """The same with places counted in blocks: every block that holds a visible key is visible."""
        start, stop = self.start_SM // block, (self.stop_SM + block - 1) // block
        return Indexing(self.query_SMHD, self.gate_SMH, start, stop)


def all_blocks(asked: Indexing, keys: int, block: int) -> Tensor:
    """Every block for every query, ``[S, M, C]``."""
    count = torch.arange(-(-keys // block), device=asked.query_SMHD.device)
    return count.expand(*asked.query_SMHD.shape[:2], -1)


def block_means(key_SND: Tensor, block: int) -> Tensor:
    """Mean of each block's keys, ``[S, C, D]``; a shorter last block has the mean of its members. Sums in float32."""
    sequences, keys, width = key_SND.shape
    padded = F.pad(key_SND.float(), (0, 0, 0, -keys % block)).view(sequences, -1, block, width)
    members = torch.full((padded.shape[1],), block, device=key_SND.device)
    members[-1] = block - -keys % block
    means: Tensor = padded.sum(2) / members[:, None]
    return means.to(key_SND.dtype)


def plain_block_scores(asked: Indexing, key_SND: Tensor, block_SMC: Tensor, block: int) -> Tensor:
    """Scores of the keys in the given blocks, ``[S, M, C * B]`` float32; -inf for keys that a query does not see.

    Blocks of -1 give -inf.
    """
    place = (block_SMC[..., None] * block + torch.arange(block, device=key_SND.device)).flatten(2)
    start, stop = asked.start_SM[..., None], asked.stop_SM[..., None].clamp(max=key_SND.shape[1])
    seen = (block_SMC >= 0).repeat_interleave(block, 2) & (place >= start) & (place < stop)
    rows = torch.arange(len(key_SND), device=key_SND.device)[:, None, None]
    chosen = key_SND[rows, place.clamp(0, key_SND.shape[1] - 1)].float()
    product = (asked.query_SMHD.float() @ chosen.transpose(2, 3)).relu_()
    scores = (asked.gate_SMH.float()[:, :, None] @ product)[:, :, 0]
    return scores.masked_fill_(~seen, -torch.inf)


def plain_scores(asked: Indexing, key_SND: Tensor) -> Tensor:
    """Scores of all keys, ``[S, M, N]`` float32: the flat indexer, without a copy of the keys for each query."""
    queries, heads = asked.query_SMHD.shape[1:3]
    rows = asked.query_SMHD.flatten(1, 2).float()
    product = (rows @ key_SND.float().transpose(1, 2)).relu_().unflatten(1, (queries, heads))
    scores: Tensor = (asked.gate_SMH.float()[:, :, None] @ product)[:, :, 0]
    place = torch.arange(key_SND.shape[1], device=key_SND.device)
    seen = (place >= asked.start_SM[..., None]) & (place < asked.stop_SM[..., None])
    return scores.masked_fill_(~seen, -torch.inf)


def block_scores(asked: Indexing, key_SND: Tensor, block_SMC: Tensor, block: int) -> Tensor:
    """:func:`plain_block_scores`, in Triton where that compiles."""
    if prefers_triton(key_SND.device, key_SND.dtype):
        from harness.kinds.kernel.triton_indexer import triton_block_scores

        return triton_block_scores(asked, key_SND, block_SMC, block)
    return plain_block_scores(asked, key_SND, block_SMC, block)


FLAT_TILE = 64
"""Keys that one program of the flat indexer scores."""


def flat_scores(asked: Indexing, key_SND: Tensor) -> Tensor:
    """:func:`plain_scores`, in Triton where that compiles."""
    if prefers_triton(key_SND.device, key_SND.dtype):
        from harness.kinds.kernel.triton_indexer import triton_block_scores

        every = all_blocks(asked, key_SND.shape[1], FLAT_TILE)
        return triton_block_scores(asked, key_SND, every, FLAT_TILE)[..., : key_SND.shape[1]]
    return plain_scores(asked, key_SND)
