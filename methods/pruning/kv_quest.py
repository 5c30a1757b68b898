"""Quest: each page of the cache keeps the least and the greatest value of every key channel, which bounds its logits.

score_p = sum_d max(q_d max_p,d, q_d min_p,d) is at least the logit of any slot of page p; each query head reads the
best pages in full, its own page among them.
"""

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import PageMethod, QueryView, group_queries


@method(
    id="kv_quest",
    kind="pruning",
    title="Quest: query-aware pages",
    paper="arXiv:2406.10774",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    claims=[
        {
            "metric": "attention speed-up",
            "value": 7.03,
            "against": "FlashInfer, full cache",
            "on": "32K tokens, budget 2048 (abstract: 'up to 7.03x')",
        }
    ],
    details={
        "dense_layers": "paper: the first two",
        "grouped heads": "each query head chooses its own pages",
        "budget": "in tokens, rounded down to pages, one page at least",
    },
)
class KvQuest(PageMethod):
    """Pages by the bounds of their logits."""

    dense_layers: int = Field(2, ge=0, description="first layers that read everything")

    def summary(self, keys_BGPSD: Tensor) -> Tensor:
        """Greatest and least of each channel, ``[B, G, P, 2 D]``."""
        return torch.cat([keys_BGPSD.amax(3), keys_BGPSD.amin(3)], -1)

    def page_scores(self, view: QueryView, summary_BGPC: Tensor) -> Tensor:
        """Upper bounds ``[B, H, T, P]``: the positive channels meet the maxima, the negative ones the minima."""
        queries = group_queries(view)
        signed = torch.cat([queries.clamp(min=0), queries.clamp(max=0)], -1)
        return (signed @ summary_BGPC[:, :, None].transpose(-1, -2)).float().flatten(1, 2)
