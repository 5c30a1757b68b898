"""Ragged parts of rows put into rectangles."""

from __future__ import annotations

import torch
from torch import Tensor


def kept_places(keep_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Places ``[B, M]`` of the kept, in order, and which of them are real; M is the most that a row keeps."""
    count_B = keep_BT.sum(1)
    most = int(count_B.max())
    place_BM = (~keep_BT).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return place_BM, torch.arange(most, device=keep_BT.device) < count_B[:, None]


def picked(x_BTD: Tensor, place_BM: Tensor) -> Tensor:
    """The vectors ``[B, M, D]`` at some places of each row."""
    return x_BTD.gather(1, place_BM[..., None].expand(-1, -1, x_BTD.shape[-1]))
