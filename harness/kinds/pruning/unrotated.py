"""Queries and keys as they were before the rotary embedding, from those that the cache holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import Refused
from harness.subjects.subject import Subject


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of all positions of a rotate-half model, ``[N, D]`` float32."""

    cos_ND: Tensor
    sin_ND: Tensor

    def undone(self, states_BHTD: Tensor, start: int) -> Tensor:
        """Un-rotated states of positions ``start``, ``start + 1`` ..., in float32."""
        stop = start + states_BHTD.shape[2]
        states = states_BHTD.float()
        left, right = states.chunk(2, -1)
        turned = torch.cat([right, -left], -1)
        result: Tensor = states * self.cos_ND[start:stop] + turned * self.sin_ND[start:stop]
        return result


def rotation_of(subject: Subject, who: str) -> Rotation:
    """The model's own rotation up to its longest text; refused where it has none that can be undone."""
    embedding = getattr(subject.model.get_decoder(), "rotary_emb", None)
    if embedding is None or getattr(embedding, "attention_scaling", 1.0) != 1.0:
        raise Refused(f"{who} needs a plain rotary embedding; {subject.name} has none")
    place_1N = torch.arange(subject.max_length, device=subject.device)[None]
    with torch.inference_mode():
        cos, sin = embedding(torch.empty(0, device=subject.device), place_1N)
    return Rotation(cos[0].float(), sin[0].float())
