"""HISA's indexer: score the means of blocks first, and single tokens only inside the best blocks.

J_b = sum_h w_h ReLU(q_h mean(k in block b)); the ``blocks`` best, the first and the last visible block among them;
inside them I_s = sum_h w_h ReLU(q_h k_s), and the ``topk`` highest tokens are the answer, -1 where fewer are visible.
The flat indexer scores every visible token: N dot products a query, where this makes N / block + blocks * block.
"""

from collections.abc import Iterator, Mapping

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.kernel import KernelMethod
from harness.kinds.kernel.indexer import Indexing, block_scores, flat_scores
from harness.kinds.kernel.indexer_workloads import indexer_workload


def highest(score_SMN: Tensor, place_SMN: Tensor, count: int) -> Tensor:
    """Places of the ``count`` highest scores, ``[S, M, count]``; -1 where a score is -inf or there are too few."""
    best = score_SMN.topk(min(count, score_SMN.shape[-1]))
    found = place_SMN.expand(score_SMN.shape).gather(-1, best.indices).masked_fill(best.values == -torch.inf, -1)
    return torch.nn.functional.pad(found, (0, count - found.shape[-1]), value=-1)


def flat_tokens(asked: Indexing, key_SND: Tensor, topk: int) -> Tensor:
    """Ids ``[S, M, topk]`` of the tokens with the highest scores among all that a query sees."""
    return highest(flat_scores(asked, key_SND), torch.arange(key_SND.shape[1], device=key_SND.device), topk)


def best_blocks(asked: Indexing, mean_SCD: Tensor, block: int, blocks: int) -> Tensor:
    """Blocks ``[S, M, blocks]`` whose tokens are scored, ascending after the -1 of places that are left over."""
    by_block = asked.by_block(block)
    score = flat_scores(by_block, mean_SCD)
    place = torch.arange(score.shape[-1], device=score.device)
    ends = (place == by_block.start_SM[..., None]) | (place == by_block.stop_SM[..., None] - 1)
    seen = score > -torch.inf
    return highest(score.masked_fill(ends & seen, torch.inf), place, blocks).sort(-1).values


def hierarchical_tokens(
    asked: Indexing, key_SND: Tensor, mean_SCD: Tensor, topk: int, block: int, blocks: int
) -> Tensor:
    """The same ids, of tokens in the best blocks; flat where the blocks would hold everything."""
    if key_SND.shape[1] <= block * blocks:
        return flat_tokens(asked, key_SND, topk)
    chosen_SMC = best_blocks(asked, mean_SCD, block, blocks)
    score = block_scores(asked, key_SND, chosen_SMC, block)
    place = chosen_SMC[..., None] * block + torch.arange(block, device=key_SND.device)
    return highest(score, place.flatten(2), topk)


@method(
    id="hisa_indexer",
    kind="kernel",
    title="HISA: the hierarchical indexer alone, against the flat one",
    paper="arXiv:2603.28458",
    guarantee="approximate",
    baseline="hisa_indexer",
    identity={"blocks": 1_000_000},
    claims=[
        {"metric": "speedup", "value": 2, "against": "flat indexer kernel", "on": "32K tokens (abstract; 4 at 128K)"},
        {"metric": "selection_iou", "value": 0.99, "against": "DSA's flat indexer", "on": "DeepSeek-V3.2 (abstract)"},
    ],
    details={
        "baseline": "each workload's own reference: the flat indexer on the same queries and keys",
        "block, blocks, topk": "public ports: 128, 64 and 2048; below 8K tokens these blocks hold everything",
        "first and last visible block": "always chosen, as in the ports",
        "heads, width": "of DeepSeek-V3.2's indexer, 64 and 128; none exists for small models",
        "keys": "ours: a slow random walk, so that neighbours are alike; nothing is claimed of a trained indexer",
        "means": "kept as the cache grows, so not timed; only the last one changes in a step",
        "last block": "its mean holds keys later than the query; harmless, for it is chosen anyway",
        "packed sequences": "equal to each alone where they begin at a block's border",
    },
)
class HisaIndexer(KernelMethod):
    """Token ids of a decode step's queries over a long cache."""

    block: int = Field(128, ge=1, description="tokens of a block")
    blocks: int = Field(64, ge=2, description="blocks whose tokens are scored")
    topk: int = Field(2048, ge=1, description="tokens that are chosen")

    sizes = ({"keys": 2048, "queries": 4}, {"keys": 8192, "queries": 4}, {"keys": 32768, "queries": 4})
    check_sizes = (
        {"keys": 100, "queries": 3, "heads": 3, "width": 8, "block": 8, "blocks": 4, "topk": 16},
        {"keys": 37, "queries": 2, "heads": 2, "width": 8, "block": 16, "blocks": 2, "topk": 40},
    )

    def workloads_at(self, subject, size: Mapping[str, int]) -> Iterator:  # type: ignore[no-untyped-def,type-arg]
        """Hierarchical against flat; what both choose in common is a figure."""
        size = {"block": self.block, "blocks": self.blocks, "topk": self.topk, "heads": 64, "width": 128} | dict(size)
        block, blocks, topk = size["block"], size["blocks"], size["topk"]
        yield indexer_workload(
            subject,
            size,
            lambda asked, key_SND, mean_SCD: hierarchical_tokens(asked, key_SND, mean_SCD, topk, block, blocks),
            lambda asked, key_SND, _: flat_tokens(asked, key_SND, topk),
        )
