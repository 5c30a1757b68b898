"""A cache layer that holds all but the last tokens in a packed form, group by group, and unpacks them to be read.

The prompt's own attention sees it exactly; groups are packed once their tokens are committed, and never again. Groups
count from each row's first token, so that a row's do not depend on its padding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from harness.errors import Refused
from harness.subjects.kv_layer import KVLayer
from harness.subjects.subject import Subject

Parts = tuple[Tensor, ...]


class Codec(Protocol):
    """Packs groups of ``G`` tokens."""

    def pack(self, keys_BHMGD: Tensor, values_BHMGD: Tensor) -> Parts:
        """Tensors ``[B, H, M, ...]`` that stand for ``M`` groups."""

    def unpack(self, parts: Parts, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values ``[B, H, M * G, D]``."""


def packed_cache(subject: Subject, who: str, codec: Codec, group: int, residual: int) -> dict[str, Any]:
    """Options of a cache of packed layers; refused where a sliding window needs slots in the order of the text."""
    if getattr(subject.model.config.get_text_config(), "sliding_window", None):
        raise Refused(f"{who} does not serve models with sliding windows")
    return {"new_layer": partial(PackedLayer, codec, group, residual)}


class PackedLayer(CacheLayerMixin):  # type: ignore[misc]
    """Packed groups, then a tail of full slots: at least ``residual`` tokens, and fewer than ``group`` more."""

    is_sliding = False
    settles = True

    def __init__(self, codec: Codec, group: int, residual: int) -> None:
        super().__init__()
        self.codec, self.group, self.residual = codec, group, residual
        self.tail = KVLayer()
        self.parts: Parts = ()
        self.groups: list[int] = []
        self.valid: Tensor | None = None
        self.position = None

    @property
    def is_initialized(self) -> bool:
        """Whether anything has been written."""
        return self.tail.is_initialized

    @is_initialized.setter
    def is_initialized(self, value: bool) -> None:
        """The base class sets it to False; the tail knows better."""

    @property
    def packed_slots(self) -> int:
        """Slots that the packed groups stand for."""
        return self.group * self.parts[0].shape[2] if self.parts else 0

    @property
    def length(self) -> int:
        """Live slots."""
        return self.packed_slots + self.tail.length

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """The tail makes its buffers."""
        self.tail.lazy_initialization(key_states, value_states)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append ``[B, H, T, D]`` and return all live slots."""
        self.tail.update(key_states, value_states)
        return self.live()

    def live(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all live slots, unpacked."""
        keys, values = self.tail.live()
        if not self.parts:
            return keys, values
        old_keys, old_values = self.codec.unpack(self.parts, keys.dtype)
        return torch.cat([old_keys, keys], 2), torch.cat([old_values, values], 2)

    def settle(self) -> None:
        """Pack every group that leaves ``residual`` tokens in the tail."""
        batch, length = self.tail.keys.shape[0], self.tail.length
        if length < self.residual + self.group:
            return
        valid = None if self.valid is None else self.valid[:, 0, self.packed_slots :]
        real = [length] * batch if valid is None else valid.sum(1).tolist()
        new = [max(0, count - self.residual) // self.group for count in real]
        if not max(new):
            return
        self.groups = self.groups or [0] * batch
        self._pack([length - count for count in real], new)
        self.groups = [old + more for old, more in zip(self.groups, new, strict=True)]
        left = [count - self.group * more for count, more in zip(real, new, strict=True)]
        self._shorten(max(left))
        self.valid = self._valid(left)

    def _pack(self, starts: Sequence[int], new: Sequence[int]) -> None:
        """Append ``new`` groups to each row's, from the tail's slot ``starts`` on."""
        device = self.tail.keys.device
        slot = torch.tensor(starts, device=device)[:, None] + torch.arange(max(new) * self.group, device=device)
        index = slot.clamp(max=self.tail.length - 1)[:, None, :, None]
        states = (t.gather(2, index.expand(-1, t.shape[1], -1, t.shape[3])) for t in self.tail.live())
        fresh = self.codec.pack(*(t.unflatten(2, (max(new), self.group)) for t in states))
        width = max(have + more for have, more in zip(self.groups, new, strict=True))
        parts = []
        for place, part in enumerate(fresh):
            grown = part.new_zeros(*part.shape[:2], width, *part.shape[3:])
            for row, (have, more) in enumerate(zip(self.groups, new, strict=True)):
                if have:
                    grown[row, :, :have] = self.parts[place][row, :, :have]
                grown[row, :, have : have + more] = part[row, :, :more]
            parts.append(grown)
        self.parts = tuple(parts)

    def _shorten(self, length: int) -> None:
        """Keep the tail's last ``length`` slots and free the rest."""
        keys, _ = self.tail.live()
        last = torch.arange(self.tail.length - length, self.tail.length, device=keys.device)
        self.tail.keep(last.expand(*keys.shape[:2], -1), None, room=self.group)

    def _valid(self, left: Sequence[int]) -> Tensor | None:
        """Where rows differ: their groups on the left, their tokens of the tail on the right, ``[B, 1, N]``."""
        if len(set(left)) == len(set(self.groups)) == 1:
            return None
        device = self.tail.keys.device
        packed = torch.tensor(self.groups, device=device)[:, None] * self.group
        first = self.tail.length - torch.tensor(left, device=device)[:, None]
        slot = torch.arange(self.length, device=device)
        inside = slot < self.packed_slots
        return torch.where(inside, slot < packed, slot - self.packed_slots >= first)[:, None]

    def keep_of_last(self, count: int, path: Tensor) -> None:
        """Of the last ``count`` slots, which are all in the tail, keep those at ``path``."""
        self.tail.keep_of_last(count, path)
        self.valid = None if self.valid is None else self.valid[:, :, : self.length]

    def select_rows(self, rows: Tensor) -> None:
        """Take these batch rows (a row may be taken more than once)."""
        self.tail.select_rows(rows)
        self.parts = tuple(part[rows] for part in self.parts)
        self.valid = None if self.valid is None else self.valid[rows]
        self.groups = [self.groups[row] for row in rows.tolist()] if self.groups else []

    def fork(self) -> PackedLayer:
        """A layer that goes on from here; packed groups are shared, as nobody writes to them."""
        twin = copy.copy(self)
        twin.tail = self.tail.fork()
        return twin

    def held_bytes(self) -> int:
        """Bytes of the packed groups, with what unpacking them needs, and of the tail's live slots."""
        return sum(part.numel() * part.element_size() for part in self.parts) + self.tail.held_bytes()

    def allocated_bytes(self) -> int:
        """The same, with the tail's spare room."""
        return sum(part.numel() * part.element_size() for part in self.parts) + self.tail.allocated_bytes()

    def get_seq_length(self) -> int:
        """Live slots."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots after the coming forward, and the offset of the first."""
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        """Unbounded."""
        return -1
