"""The channels that a rotary embedding turns together, by frequency."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.errors import Refused


def pair_channels(width: int, pairing: str) -> Tensor:
    """Channels of each chunk, ``[width / 2, 2]``: (i, i + width / 2) for rotate-half models, else (2i, 2i + 1)."""
    channel = torch.arange(width)
    return channel.view(2, -1).T if pairing == "half" else channel.view(-1, 2)


def chunk_count(wanted: int, width: int, who: str) -> int:
    """Chunks to use of a head of ``width`` channels; 0 asks for a quarter of them."""
    if wanted > width // 2:
        raise Refused(f"{who} asks for {wanted} chunks; a head of this model has {width // 2}")
    return wanted or max(1, width // 8)
