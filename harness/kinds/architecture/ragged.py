"""Ragged parts of rows put into rectangles: kept places side by side, and segments grouped by their length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.kinds.architecture.blocks import Blocks

SMALLEST = 8
"""Longest segment of the first group; each further group holds segments up to twice as long."""


def kept_places(keep_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Places ``[B, M]`` of the kept, in order, and which of them are real; M is the most that a row keeps."""
    count_B = keep_BT.sum(1)
    most = int(count_B.max())
    place_BM = (~keep_BT).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return place_BM, torch.arange(most, device=keep_BT.device) < count_B[:, None]


def picked(x_BTD: Tensor, place_BM: Tensor) -> Tensor:
    """The vectors ``[B, M, D]`` at some places of each row."""
    return x_BTD.gather(1, place_BM[..., None].expand(-1, -1, x_BTD.shape[-1]))


@dataclass(frozen=True)
class Segments:
    """Runs of consecutive places that together are all places, counted through all rows: where each begins, its length.

    ``row_K`` and ``number_K`` say in which row a segment lies, and how many lie before it there.
    """

    start_K: Tensor
    length_K: Tensor
    row_K: Tensor
    number_K: Tensor

    @classmethod
    def after(cls, last_BT: Tensor) -> Segments:
        """Segments that end with a marked place or with their row."""
        first_BT = torch.cat([torch.ones_like(last_BT[:, :1]), last_BT[:, :-1]], 1)
        start_K = first_BT.flatten().nonzero()[:, 0]
        end = start_K.new_tensor([first_BT.numel()])
        number_BT = first_BT.cumsum(1) - 1
        row_K = start_K // first_BT.shape[1]
        return cls(start_K, torch.cat([start_K[1:], end]) - start_K, row_K, number_BT.flatten()[start_K])

    def groups(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Segments of like length: their indices ``[G]``, their places ``[G, S]``, and which of these are theirs."""
        room, longest = 0, int(self.length_K.max())
        while room < longest:
            least, room = room, max(SMALLEST, 2 * room)
            index_G = ((self.length_K > least) & (self.length_K <= room)).nonzero()[:, 0]
            if len(index_G):
                length_G1 = self.length_K[index_G, None]
                step_S = torch.arange(int(length_G1.max()), device=index_G.device)
                held_GS = step_S < length_G1
                yield index_G, self.start_K[index_G, None] + torch.where(held_GS, step_S, 0), held_GS


def inside(blocks: Blocks, lead_KnD: Tensor, x_ND: Tensor, segments: Segments, causal: bool) -> tuple[Tensor, Tensor]:
    """Each segment through ``blocks`` on its own, with ``n`` vectors before it; both parts' outputs, as they came.

    ``x_ND`` holds the vectors of all places. Not ``causal``: all of a segment sees all of it and its lead.
    """
    leads, indices, vectors, places = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
    before = lead_KnD.shape[1]
    for index_G, place_GS, held_GS in segments.groups():
        rectangle = torch.cat([lead_KnD[index_G], x_ND[place_GS]], 1)
        seen = None if causal else torch.nn.functional.pad(held_GS, (before, 0), value=True)[:, None, None]
        out = blocks(rectangle, mask=seen)
        leads.append(out[:, :before])
        indices.append(index_G)
        vectors.append(out[:, before:][held_GS])
        places.append(place_GS[held_GS])
    return torch.cat(leads)[torch.cat(indices).argsort()], torch.cat(vectors)[torch.cat(places).argsort()]
