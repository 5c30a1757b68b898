"""H2O: half of the budget goes to the heaviest tokens so far, half to the most recent ones.

s_j = sum over all queries i >= j of softmax(q_i k / sqrt(d))_j, averaged over each key/value head's query heads and
carried on while decoding, over what the cache still holds; the last floor(K / 2) slots always stay. With
``normalise`` s_j is divided by the number of queries that have seen token j, which early tokens otherwise gain from.
"""

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import EvictionMethod, LayerView, column_sums


@method(
    id="kv_h2o",
    kind="pruning",
    title="H2O: heavy hitters and recent tokens",
    paper="arXiv:2306.14048",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    claims=[
        {
            "metric": "decode throughput ratio",
            "value": 29,
            "against": "DeepSpeed Zero-Inference and Accelerate (abstract: 'up to 29x')",
            "on": "OPT-6.7B and OPT-30B with 20 % heavy hitters",
        }
    ],
    details={
        "recent": "paper: half of the budget",
        "grouped heads": "reconstruction: the mean over a key/value head's query heads",
        "normalise": "off, as the paper; a common library divides by the queries that see a token, without a window",
        "prompt": "evicted once at its end; the paper evicts while reading it",
    },
)
class KvH2o(EvictionMethod):
    """Score: cumulative attention; the recent half stands above all."""

    while_decoding = True
    recent: float = Field(0.5, ge=0, le=1, description="part of the budget that goes to the last tokens")
    normalise: bool = Field(False, description="divide by the number of queries that have seen the token")

    def scores(self, view: LayerView) -> Tensor:
        """``[B, H, N]``, infinite for the recent slots; the sums are remembered with their slots."""
        sums_BHN = view.recall("attention") + column_sums(view)
        view.remember("attention", sums_BHN)
        if self.normalise:
            sums_BHN = sums_BHN / (view.seen_B[:, None, None] - view.position_BHN).clamp(min=1)
        recent_B = (self.budget(view.prompt_B) * self.recent).long()
        return sums_BHN.masked_fill(view.position_BHN >= (view.seen_B - recent_B)[:, None, None], torch.inf)
