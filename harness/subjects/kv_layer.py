"""Keys and values of one layer: preallocated buffers whose live slots can be dropped, shared and forked."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin


class KVLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer in buffers that grow by half; ``length`` slots are live.

    What a method notes of each slot is in ``memory``, of each row in ``notes``, what can be made again in ``scratch``.
    """

    is_sliding = False
    settles = False
    """Whether what it holds changes when tokens are committed, so that texts must be read token by token."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.valid: Tensor | None = None
        self.position: Tensor | None = None
        self.last_queries: Tensor | None = None
        self.memory: dict[str, Tensor] = {}
        self.scratch: dict[str, Any] = {}
        self.notes: dict[str, Tensor] = {}
        self.borrowed = False
        self.lent = False

    def fork(self) -> KVLayer:
        """A layer that goes on from here: it reads these buffers until it writes, then it has its own."""
        twin = copy.copy(self)
        # Notes may hold buffers that both would write to, so the twin makes its own again.
        twin.memory, twin.notes, twin.scratch = dict(self.memory), dict(self.notes), {}
        twin.borrowed = True
        self.lent = True
        return twin

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make buffers with room for what comes plus 64 tokens of decoding."""
        self._allocate(key_states, value_states, key_states.shape[2] + 64)
        self.is_initialized = True

    def _allocate(self, keys: Tensor, values: Tensor, capacity: int) -> None:
        batch, heads, _, width = keys.shape
        self.keys = keys.new_empty(batch, heads, capacity, width)
        self.values = values.new_empty(batch, values.shape[1], capacity, values.shape[3])
        self.borrowed = self.lent = False

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append ``[B, H, T, D]`` and return all live slots as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2] or self.borrowed:
            old_keys, old_values = self.live()
            self._allocate(key_states, value_states, end + max(64, end // 2))
            self.keys[:, :, : self.length] = old_keys
            self.values[:, :, : self.length] = old_values
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.live()

    def live(self) -> tuple[Tensor, Tensor]:
        """Views of the live slots."""
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def keep(self, index_BHK: Tensor, valid_BHK: Tensor | None, room: int = 0) -> None:
        """Keep these slots and free the rest; ``room`` more slots are allocated for what will be appended."""
        keys, values = self.live()
        wide = index_BHK.unsqueeze(-1)
        kept = index_BHK.shape[2]
        kept_keys = keys.gather(2, wide.expand(-1, -1, -1, keys.shape[3]))
        kept_values = values.gather(2, wide.expand(-1, -1, -1, values.shape[3]))
        if room or self.borrowed or self.lent:
            self._allocate(kept_keys, kept_values, kept + max(room, 64))
        self.keys[:, :, :kept] = kept_keys
        self.values[:, :, :kept] = kept_values
        self.length = kept
        self.valid = valid_BHK
        if self.position is not None:
            self.position = self.position.expand(-1, index_BHK.shape[1], -1).gather(2, index_BHK)
        self.memory = {name: value.gather(2, index_BHK) for name, value in self.memory.items()}

    def drop(self, index_BHT: Tensor) -> None:
        """Free T slots of each head; what the last T slots hold moves into their places, and the rest stays."""
        dropped = index_BHT.expand(-1, self.keys.shape[1], -1).sort(-1).values
        left = self.length - dropped.shape[2]
        last = torch.arange(left, self.length, device=dropped.device)
        # The last slots that stay come first, as many as there are gaps before them; the others swap among themselves.
        gone = (last == dropped.unsqueeze(-1)).any(-2)
        mover = left + gone.int().argsort(dim=-1, stable=True)
        if self.borrowed or self.lent:
            old_keys, old_values = self.live()
            self._allocate(old_keys, old_values, self.keys.shape[2])
            self.keys[:, :, : self.length] = old_keys
            self.values[:, :, : self.length] = old_values
        for buffer in (self.keys, self.values):
            wide = mover.unsqueeze(-1).expand(-1, -1, -1, buffer.shape[3])
            buffer.scatter_(2, dropped.unsqueeze(-1).expand_as(wide), buffer.gather(2, wide))
        self.length = left
        self.valid = None if self.valid is None else self.valid[:, :, :left]
        moved = {name: _moved(value, dropped, mover) for name, value in self.memory.items()}
        self.memory = {name: value[:, :, :left] for name, value in moved.items()}
        if self.position is not None:
            everywhere = self.position.expand(-1, dropped.shape[1], -1)
            self.position = _moved(everywhere, dropped, mover)[:, :, :left]

    def select_rows(self, rows: Tensor) -> None:
        """Take these batch rows (a row may be taken more than once)."""
        self.keys, self.values = (t[rows] for t in (self.keys, self.values))
        self.borrowed = self.lent = False
        self.valid = None if self.valid is None else self.valid[rows]
        self.position = None if self.position is None else self.position[rows]
        self.memory = {name: value[rows] for name, value in self.memory.items()}
        self.notes = {name: value[rows] for name, value in self.notes.items()}
        # What a method noted of the rows' slots is made again.
        self.scratch = {}

    def keep_of_last(self, count: int, path: Tensor) -> None:
        """Of the last ``count`` slots keep those at ``path``, in order."""
        start = self.length - count
        stop = start + len(path)
        if len(path) and int(path[-1]) != len(path) - 1:
            for buffer in (self.keys, self.values):
                buffer[:, :, start:stop] = buffer[:, :, start + path]
            if self.position is not None:
                self.position[:, :, start:stop] = self.position[:, :, start + path]
        self.length = stop
        self.valid = None if self.valid is None else self.valid[:, :, :stop]
        self.position = None if self.position is None else self.position[:, :, :stop]

    def settle(self) -> None:
        """Called once tokens are committed."""

    def held_bytes(self) -> int:
        """Bytes of the live slots."""
        return sum(t.numel() * t.element_size() for t in self.live())

    def allocated_bytes(self) -> int:
        """Bytes of the buffers, spare room included."""
        return sum(t.numel() * t.element_size() for t in (self.keys, self.values))

    def get_seq_length(self) -> int:
        """Live slots."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots after the coming forward, and the offset of the first."""
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        """Unbounded."""
        return -1


def _moved(number_BHN: Tensor, to_BHT: Tensor, from_BHT: Tensor) -> Tensor:
    return number_BHN.scatter(2, to_BHT, number_BHN.gather(2, from_BHT))
