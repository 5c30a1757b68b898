"""SnapKV: the prompt's last queries vote for the tokens that decoding will need.

score_j = avgpool_kernel(mean over the last W queries i of softmax(q_i k / sqrt(d))_j) over the slots j before the
window, averaged over each key/value head's query heads; the window itself is always kept. Applied once, after the
prompt.
"""

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import LayerView, PruningMethod, window_attention


@method(
    id="kv_snapkv",
    kind="pruning",
    title="SnapKV: prompt compression by the last queries' attention",
    paper="arXiv:2404.14469",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    claims=[
        {
            "metric": "speedup_decode",
            "value": 3.6,
            "against": "full cache",
            "on": "inputs of 16K tokens (abstract)",
        }
    ],
    details={
        "window": "reference code (32 to 64)",
        "kernel": "reference code (5 or 7)",
        "pooling": "mean over window and group (the release: sum, same ranking), zeros beyond the ends",
        "budget": "the window counts; with K < W the last K stay",
    },
)
class KvSnapKV(PruningMethod):
    """Observation window of ``window`` queries, average pooling of ``kernel`` slots."""

    keep_ratio: float = Field(0.5, gt=0, le=1, description="part of the prompt's tokens kept")
    window: int = Field(32, ge=1, description="last queries that vote; always kept")
    kernel: int = Field(5, ge=1, description="odd width of the average pooling over slots")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that the pooling is centred")
        return value

    def scores(self, view: LayerView) -> Tensor:
        """Pooled votes ``[B, G, N]``; the window lies above all, latest first."""
        rows_BGWN = window_attention(view, self.window)
        votes_BGN = rows_BGWN.sum(2) / (rows_BGWN.sum(-1) > 0).sum(2).clamp(min=1).unsqueeze(-1)
        place = torch.arange(view.num_slots, device=votes_BGN.device)
        inside = place >= view.num_slots - self.window
        # Votes of the window and beyond the ends count as zero, so that a row's scores do not depend on its padding.
        voted = votes_BGN.masked_fill(inside, 0.0)
        pooled = F.avg_pool1d(voted, self.kernel, stride=1, padding=self.kernel // 2)[..., : view.num_slots]
        return torch.where(inside, 1e6 + place, pooled)
