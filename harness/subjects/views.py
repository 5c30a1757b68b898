"""What a pruning method may see of a layer, and what it answers: slots to keep, or slots to read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Keep = tuple[Tensor, Tensor | None]
"""Slots to keep, ``index_BHK`` (ascending) with ``valid_BHK`` or None where all are valid."""


@dataclass(frozen=True)
class Drop:
    """Slots to drop, ``index_BHT``, all of them real: how a held budget is kept, without moving what stays."""

    index_BHT: Tensor


@dataclass(frozen=True)
class LayerView:
    """What a method that evicts sees of one layer after a forward.

    The last T slots are those of the T queries; the others lie in order until slots are dropped while decoding.
    Shapes: ``queries_BHTD`` (query heads), ``keys_BHND`` and ``values_BHND`` (key/value heads), ``valid_BHN``
    (broadcast over heads; None where no slot is padding), ``position_BHN`` (position in the text), ``seen_B`` (tokens
    seen so far), ``prompt_B`` (length of the prompt). ``phase`` is ``prefill`` or ``decode``. ``memory`` holds what the
    method remembers of each slot.
    """

    layer: int
    num_layers: int
    phase: str
    queries_BHTD: Tensor
    keys_BHND: Tensor
    values_BHND: Tensor
    valid_BHN: Tensor | None
    position_BHN: Tensor
    seen_B: Tensor
    prompt_B: Tensor
    scaling: float
    memory: dict[str, Tensor]

    @property
    def num_slots(self) -> int:
        """Slots held before eviction, padding included."""
        return self.keys_BHND.shape[2]

    def recall(self, name: str) -> Tensor:
        """What is remembered of each slot, ``[B, H, N]`` float32; 0 for slots that came since."""
        fresh = self.keys_BHND.new_zeros(self.keys_BHND.shape[:3], dtype=torch.float32)
        if name in self.memory:
            old = self.memory[name]
            fresh[:, :, : old.shape[2]] = old
        return fresh

    def remember(self, name: str, value_BHN: Tensor) -> None:
        """Keep a number with each slot; it moves and goes with its slot."""
        self.memory[name] = value_BHN


Evict = Callable[[LayerView], Keep | Drop | None]


@dataclass(frozen=True)
class QueryView:
    """What a method that selects sees of one layer before its attention.

    Shapes: ``queries_BHTD``, ``keys_BGND`` (all live slots; the last T are the queries' own), ``allowed``
    ``[B|1, H|1, T, N]`` (True = may be read; None = everything). The first ``committed`` slots will not move any more.
    ``scratch`` is the method's own for this layer and request.
    """

    layer: int
    num_layers: int
    phase: str
    queries_BHTD: Tensor
    keys_BGND: Tensor
    allowed: Tensor | None
    committed: int
    scaling: float
    scratch: dict[str, Any]

    @property
    def num_slots(self) -> int:
        """Live slots, padding included."""
        return self.keys_BGND.shape[2]

    @property
    def per_group(self) -> int:
        """Query heads that share a key/value head."""
        return self.queries_BHTD.shape[1] // self.keys_BGND.shape[1]


@dataclass(frozen=True)
class Selection:
    """Slots each query reads, ``index_BSTK`` with ``S`` 1, the key/value heads or the query heads.

    ``valid_BSTK``: False entries are not read (None: all are). ``scored`` is the part of the layer's bytes, keys and
    values, that finding them has read.
    """

    index_BSTK: Tensor
    valid_BSTK: Tensor | None
    scored: float


Select = Callable[[QueryView], Selection | None]
