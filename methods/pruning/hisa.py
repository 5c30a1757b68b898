"""HISA: an indexer that first looks at the means of blocks, and at single tokens only inside the best blocks.

J_b = sum_h w_h ReLU(q_h mean(k in block b)); the best ``blocks`` blocks, the first and the query's own among them;
inside them I_s = sum_h w_h ReLU(q_h k_s), and the highest are read. The flat indexer scores every token by I_s.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import (
    QueryView,
    Selection,
    SingleQueryMethod,
    best_slots,
    gathered,
    group_queries,
    logits,
    page_summaries,
    top_slots,
)


def mean_key(keys_BGPSD: Tensor) -> Tensor:
    """``[B, G, P, D]``."""
    return keys_BGPSD.float().mean(3).to(keys_BGPSD.dtype)


def indexer_scores(view: QueryView, keys_BGND: Tensor) -> Tensor:
    """``sum_h w_h ReLU(q_h k)`` of the view's only query, ``[B, G, N]``."""
    return logits(group_queries(view), keys_BGND).relu_().mean(2)[:, :, 0]


def block_rows(keys_BGND: Tensor, blocks_BGM: Tensor, page: int, whole: int) -> tuple[Tensor, Tensor]:
    """Keys ``[B, G, S, D]`` and slots ``[B, G, S]`` of these blocks, with all slots after the ``whole`` blocks."""
    width, tail = keys_BGND.shape[3], keys_BGND[:, :, whole * page :]
    # A block is copied in one piece.
    blocks = gathered(keys_BGND[:, :, : whole * page].unflatten(2, (whole, page)).flatten(3), blocks_BGM)
    place = torch.arange(page, device=blocks_BGM.device)
    slots = (blocks_BGM[..., None] * page + place).flatten(2)
    rest = torch.arange(whole * page, keys_BGND.shape[2], device=slots.device).expand(*slots.shape[:2], -1)
    return torch.cat([blocks.unflatten(3, (page, width)).flatten(2, 3), tail], 2), torch.cat([slots, rest], 2)


@method(
    id="hisa",
    kind="pruning",
    title="HISA: hierarchical indexing",
    paper="arXiv:2603.28458",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    claims=[
        {
            "metric": "indexer speed-up",
            "value": 2,
            "against": "flat indexer",
            "on": "32K tokens (abstract; 4 at 128K)",
        }
    ],
    details={
        "indexer": "reconstruction: dense models have none; each key/value head is one, with weights 1 / group",
        "page, blocks": "public ports have 128 and 64; smaller here, for prompts of 1K",
        "first and own block": "always among the chosen, as in the ports; the own one may be shorter",
    },
)
class Hisa(SingleQueryMethod):
    """One set a key/value head."""

    page: int = Field(16, ge=1, description="slots of a block")
    blocks: int = Field(16, ge=2, description="blocks whose tokens are scored")
    indexer: Literal["hierarchical", "flat"] = Field("hierarchical", description="flat: every token is scored")

    def choose_one(self, view: QueryView, keep: int, artifact: object) -> Selection:
        """The best tokens of the best blocks; of all tokens where the blocks hold them all."""
        if self.indexer == "flat" or view.num_slots <= self.blocks * self.page:
            index, _ = best_slots(indexer_scores(view, view.keys_BGND)[:, :, None], None, torch.tensor([[keep]]))
            return Selection(index, None, 0.5)
        whole = (view.num_slots - 1) // self.page
        means = page_summaries(view, self.page, mean_key, whole)
        blocks_BGM = self.best_blocks(indexer_scores(view, means))
        keys, slots_BGS = block_rows(view.keys_BGND, blocks_BGM, self.page, whole)
        score = indexer_scores(view, keys)
        # The query's own slot is the last.
        score[..., -1] = torch.finfo(score.dtype).max
        index = slots_BGS.gather(-1, top_slots(score, min(keep, score.shape[-1])))
        read = (means.shape[2] + keys.shape[2]) / (2 * view.num_slots)
        return Selection(index[:, :, None], None, read)

    def best_blocks(self, score_BGP: Tensor) -> Tensor:
        """Whole blocks to look into, ``[B, G, M]``: the first and the best; the query's own comes on top."""
        score_BGP[..., 0] = torch.finfo(score_BGP.dtype).max
        return score_BGP.topk(min(self.blocks - 1, score_BGP.shape[-1])).indices
