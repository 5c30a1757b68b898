"""Ada-KV: the heads of a layer share one budget, and heads whose attention is spread get more of it.

The SnapKV scores of all H key/value heads are pooled; each head keeps its best alpha K slots, then the best of the
rest fill the layer's H K. Heads hold different numbers of slots: shorter ones are padded to the longest, so the
memory freed is less than the budget says (``kv_bytes_held`` against ``kv_kept_fraction``).
"""

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import LayerView, ObservationMethod, keep_where


def head_slots(score_HN: Tensor, keep: int, floor: int) -> Tensor:
    """``[H, N]``, True for the slots that stay: ``H * keep`` in all, each head's best ``floor`` among them."""
    heads, slots = score_HN.shape
    order = score_HN.argsort(dim=-1, descending=True, stable=True)
    safe = torch.zeros(heads, slots, dtype=torch.bool, device=score_HN.device).scatter(1, order[:, :floor], True)
    lifted = score_HN.masked_fill(safe, torch.inf)
    best = lifted.flatten().argsort(descending=True, stable=True)[: heads * keep]
    return (
        torch.zeros(heads * slots, dtype=torch.bool, device=score_HN.device).scatter(0, best, True).view(heads, slots)
    )


@method(
    id="kv_ada",
    kind="pruning",
    title="Ada-KV: budgets that follow the heads",
    paper="arXiv:2407.11550",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    details={
        "alpha": "reference code: 0.2",
        "scores": "SnapKV's, as the paper's Ada-SnapKV; the window stays in every head",
        "storage": "ours: heads padded to the longest; the paper stores them without",
    },
)
class KvAda(ObservationMethod):
    """SnapKV with a budget a head."""

    alpha: float = Field(0.2, ge=0, le=1, description="part of the even share that each head has for itself")

    def evict(self, view: LayerView):  # type: ignore[no-untyped-def]
        """Slots and validity by head; None where nothing is dropped."""
        if self.unlimited:
            return None
        score_BHN = self.scores(view)
        valid_BHN = score_BHN.new_ones(score_BHN.shape, dtype=torch.bool)
        if view.valid_BHN is not None:
            valid_BHN = view.valid_BHN.expand_as(score_BHN)
        stays_BHN = torch.zeros_like(valid_BHN)
        for row, keep in enumerate(self.budget(view.prompt_B).tolist()):
            real = valid_BHN[row, 0]
            window = min(self.window, keep)
            floor = max(window, int(self.alpha * keep))
            stays_BHN[row][:, real] = head_slots(score_BHN[row][:, real], keep, floor)
        return keep_where(stays_BHN)
