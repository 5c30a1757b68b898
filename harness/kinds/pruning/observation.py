"""Scores from an observation window: the prompt's last queries vote for the slots before them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from harness.kinds.pruning.base import EvictionMethod, window_attention
from harness.subjects.views import LayerView


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ObservationMethod(EvictionMethod):
    """SnapKV's scores; a subclass may spend the budget in another way."""

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
