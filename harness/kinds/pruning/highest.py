"""The invariant of methods that rank: no dropped slot has a higher score than a kept one."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.subjects.views import Drop, Keep, LayerView


def stays(view: LayerView, answer: Keep | Drop) -> Tensor:
    """``[B, H, N]``, True for the slots that stay. AssertionError where a slot is named twice, or padding is named."""
    shape = view.keys_BHND.shape[:3]
    real_BHN = view.position_BHN.new_ones(shape, dtype=torch.bool)
    if view.valid_BHN is not None:
        real_BHN = view.valid_BHN.expand(shape).clone()
    index, valid = (answer.index_BHT, None) if isinstance(answer, Drop) else answer
    used = torch.ones_like(index) if valid is None else valid.expand_as(index).long()
    named = torch.zeros(shape, dtype=torch.long, device=index.device).scatter_add_(2, index, used)
    wrong = (named > real_BHN.long()).nonzero().tolist()
    if wrong:
        raise AssertionError(f"layer {view.layer}: doubled or padded slots at row, head, slot {wrong}")
    return real_BHN & (named == 0) if isinstance(answer, Drop) else named > 0


def assert_highest(view: LayerView, score_BHN: Tensor, answer: Keep | Drop) -> None:
    """Of each head's real slots, the kept ones have the highest scores (ties may go either way)."""
    stays_BHN = stays(view, answer)
    for row, scores_HN in enumerate(score_BHN.float()):
        for head, scores_N in enumerate(scores_HN):
            real = scores_N if view.valid_BHN is None else scores_N[view.valid_BHN[row].expand(scores_HN.shape)[head]]
            got = sorted(scores_N[stays_BHN[row, head]].tolist(), reverse=True)
            best = sorted(real.tolist(), reverse=True)[: len(got)]
            if got != best:
                raise AssertionError(
                    f"layer {view.layer}, row {row}, head {head}: scores {got} are kept, the best are {best}"
                )
