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
    PageMethod,
    QueryView,
    Selection,
    best_pages,
    best_slots,
    gathered,
    group_queries,
    logits,
    page_slots,
    page_summaries,
)


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
        "tail": "a shorter last block stays selectable",
        "first and own block": "always among the chosen, as in the ports",
    },
)
class Hisa(PageMethod):
    """One set a key/value head."""

    page: int = Field(16, ge=1, description="slots of a block")
    blocks: int = Field(16, ge=2, description="blocks whose tokens are scored")
    indexer: Literal["hierarchical", "flat"] = Field("hierarchical", description="flat: every token is scored")

    @property
    def least(self) -> int:
        """Tokens are chosen one by one."""
        return 1

    def summary(self, keys_BGPSD: Tensor) -> Tensor:
        """The mean key of each block, ``[B, G, P, D]``."""
        return keys_BGPSD.float().mean(3).to(keys_BGPSD.dtype)

    def page_scores(self, view: QueryView, summary_BGPC: Tensor) -> Tensor:
        """``J``, ``[B, G, T, P]``, infinite for the first block."""
        score = logits(group_queries(view), summary_BGPC).relu().mean(2)
        score[..., 0] = torch.finfo(score.dtype).max
        return score

    def choose(self, view: QueryView, keep_BT: Tensor, artifact: object) -> Selection:
        """The best tokens of the best blocks; of all tokens where the blocks hold them all."""
        width = view.keys_BGND.shape[3]
        if self.indexer == "flat" or view.num_slots <= self.blocks * self.page:
            index, valid = best_slots(logits(group_queries(view), view.keys_BGND).relu().mean(2), view.allowed, keep_BT)
            return Selection(index, valid, 0.5)
        summary = page_summaries(view, self.page, self.summary)
        count_BT = torch.full_like(keep_BT, self.blocks)
        pages, found = best_pages(self.page_scores(view, summary), view.num_slots, self.page, count_BT)
        slots, valid = page_slots(pages, found, view.num_slots, self.page)
        score = self.token_scores(view, slots)
        own_T = view.num_slots - score.shape[2] + torch.arange(score.shape[2], device=score.device)
        later = slots > own_T[:, None]
        score = score.masked_fill(later if valid is None else later | ~valid, -torch.inf)
        score = score.masked_fill((slots == own_T[:, None]) & ~(score == -torch.inf), torch.finfo(score.dtype).max)
        best = score.topk(min(int(keep_BT.max()), score.shape[-1]))
        place = torch.arange(best.indices.shape[-1], device=score.device)
        used = (place < keep_BT[:, None, :, None]) & best.values.isfinite()
        read = (summary.shape[2] + slots.shape[-1]) * width / (2 * view.num_slots * width)
        return Selection(slots.gather(-1, best.indices), None if bool(used.all()) else used, read)

    def token_scores(self, view: QueryView, slots_BGTS: Tensor) -> Tensor:
        """``I`` of the given slots, ``[B, G, T, S]``."""
        if slots_BGTS.shape[2] > 1:
            return logits(group_queries(view), view.keys_BGND).relu().mean(2).gather(-1, slots_BGTS)
        return logits(group_queries(view), gathered(view.keys_BGND, slots_BGTS[:, :, 0])).relu().mean(2)
