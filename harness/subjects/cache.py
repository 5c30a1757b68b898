"""The key/value cache of the zoo: preallocated, prunable, able to roll back and to serve draft trees.

One forward appends its tokens to every layer; :meth:`KVCache.commit` then keeps all of them or, after a draft tree,
the accepted path only. A pruning method supplies an ``evict`` function; it sees each layer through a
:class:`LayerView` and names the slots to keep, and the others are really freed.

Slots carry rotated keys, so they can be moved and dropped freely; a row's next position is the number of tokens it
has *seen*, not the number of slots it holds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

Keep = tuple[Tensor, Tensor | None]
"""Slots to keep, ``index_BHK`` (ascending) with ``valid_BHK`` or None where all are valid."""


@dataclass(frozen=True)
class LayerView:
    """What a pruning method may see of one layer after a forward.

    Shapes: ``queries_BHTD`` (query heads), ``keys_BHND`` and ``values_BHND`` (key/value heads), ``valid_BHN``
    (broadcast over heads; None where no slot is padding), ``position_BHN`` (position in the text), ``seen_B`` (tokens
    seen so far), ``prompt_B`` (length of the prompt). ``phase`` is ``prefill`` or ``decode``.
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

    @property
    def num_slots(self) -> int:
        """Slots held before eviction, padding included."""
        return self.keys_BHND.shape[2]


Evict = Callable[[LayerView], Keep | None]


class KVLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer in buffers that grow by half; ``length`` slots are live."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.valid: Tensor | None = None
        self.position: Tensor | None = None
        self.last_queries: Tensor | None = None
        self.borrowed = False
        self.lent = False

    def fork(self) -> KVLayer:
        """A layer that goes on from here: it reads these buffers until it writes, then it has its own."""
        twin = copy.copy(self)
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

    def select_rows(self, rows: Tensor) -> None:
        """Take these batch rows (a row may be taken more than once)."""
        self.keys, self.values = (t[rows] for t in (self.keys, self.values))
        self.borrowed = self.lent = False
        self.valid = None if self.valid is None else self.valid[rows]
        self.position = None if self.position is None else self.position[rows]

    def get_seq_length(self) -> int:
        """Live slots."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots after the coming forward, and the offset of the first."""
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        """Unbounded."""
        return -1


class KVCache(Cache):  # type: ignore[misc]
    """All layers of one batch. ``evict`` makes it a pruned cache; ``evict_while_decoding`` calls it after each step."""

    def __init__(self, num_layers: int, evict: Evict | None = None, evict_while_decoding: bool = False) -> None:
        super().__init__(layers=[KVLayer() for _ in range(num_layers)])
        self.evict = evict
        self.evict_while_decoding = evict_while_decoding
        self.seen_B: Tensor | None = None
        self.prompt_B: Tensor | None = None
        self.pending = 0

    @property
    def phase(self) -> str:
        """``prefill`` until the first commit, ``decode`` afterwards."""
        return "prefill" if self.prompt_B is None else "decode"

    def begin(self, valid_BT: Tensor, depth_T: Tensor | None = None) -> Tensor:
        """Announce the next forward's tokens (False = left padding) and return their positions, ``[B, T]``.

        Several forwards may be announced before a commit; they grow one tree, and ``depth_T`` gives the distance of
        their tokens from the first position that is not committed.
        """
        seen_B = self.seen_B if self.seen_B is not None else valid_BT.new_zeros(valid_BT.shape[0], dtype=torch.long)
        steps_BT = valid_BT.cumsum(1) - 1 + self.pending if depth_T is None else depth_T[None]
        self.pending += valid_BT.shape[1]
        return (seen_B[:, None] + steps_BT).clamp(min=0)

    def append_slots(self, valid_BT: Tensor | None, position_BT: Tensor) -> None:
        """Record padding and positions of the coming slots in every layer that has to know them."""
        extended: dict[tuple[int, int], Tensor] = {}
        for layer in self.layers:
            if self.evict is not None:
                new = position_BT[:, None]
                old = layer.position
                layer.position = new if old is None else torch.cat([old, new.expand(-1, old.shape[1], -1)], 2)
            if valid_BT is not None or layer.valid is not None:
                # Layers that hold the same slots share one tensor, and with it the mask made from it.
                key = (id(layer.valid), layer.length)
                if key not in extended:
                    extended[key] = self._extended_valid(layer, valid_BT, position_BT)
                layer.valid = extended[key]

    @staticmethod
    def _extended_valid(layer: KVLayer, valid_BT: Tensor | None, position_BT: Tensor) -> Tensor:
        new = torch.ones_like(position_BT, dtype=torch.bool) if valid_BT is None else valid_BT
        old = layer.valid
        if old is None:
            old = new.new_ones(new.shape[0], 1, layer.length)
        return torch.cat([old, new[:, None].expand(-1, old.shape[1], -1)], 2)

    def observe(self, index: int, queries_BHTD: Tensor, scaling: float) -> None:
        """Called by the attention function after it has used layer ``index``."""
        if self.evict is None:
            return
        layer = self.layers[index]
        if self.phase == "prefill":
            self._evict_layer(index, queries_BHTD, scaling)
        elif self.evict_while_decoding:
            layer.last_queries = queries_BHTD
            layer.scaling = scaling

    def _evict_layer(self, index: int, queries_BHTD: Tensor, scaling: float) -> None:
        layer: KVLayer = self.layers[index]
        keys, values = layer.live()
        assert self.evict is not None and layer.position is not None
        position = layer.position
        seen_B = position.amax(dim=(1, 2)) + 1
        prompt_B = seen_B if self.prompt_B is None else self.prompt_B
        view = LayerView(
            index,
            len(self.layers),
            self.phase,
            queries_BHTD,
            keys,
            values,
            layer.valid,
            position,
            seen_B,
            prompt_B,
            scaling,
        )
        keep = self.evict(view)
        if keep is not None:
            layer.keep(*keep, room=64 if self.phase == "prefill" else 0)

    def commit(self, path: Tensor | None = None) -> None:
        """Keep all tokens since the last commit, or those at ``path`` (indices into them) only.

        An empty path rolls them back.
        """
        count = self.pending if path is None else len(path)
        if path is not None and count < self.pending:
            self._compact(path)
        if self.evict_while_decoding and self.phase == "decode":
            for index, layer in enumerate(self.layers):
                queries = layer.last_queries if path is None else layer.last_queries[:, :, path]
                self._evict_layer(index, queries, layer.scaling)
                layer.last_queries = None
        self.pending = 0

    def _compact(self, path: Tensor) -> None:
        for layer in self.layers:
            start = layer.length - self.pending
            stop = start + len(path)
            if len(path) and int(path[-1]) != len(path) - 1:
                for buffer in (layer.keys, layer.values):
                    buffer[:, :, start:stop] = buffer[:, :, start + path]
                if layer.position is not None:
                    layer.position[:, :, start:stop] = layer.position[:, :, start + path]
            layer.length = stop
            layer.valid = None if layer.valid is None else layer.valid[:, :, :stop]
            layer.position = None if layer.position is None else layer.position[:, :, :stop]

    def advance(self, count_B: Tensor) -> None:
        """Count these tokens as seen; the first call ends the prefill."""
        self.seen_B = count_B if self.seen_B is None else self.seen_B + count_B
        if self.prompt_B is None:
            self.prompt_B = self.seen_B

    def select_rows(self, rows: Tensor) -> None:
        """Take these batch rows, in order; used to share one prefill between continuations."""
        for layer in self.layers:
            layer.select_rows(rows)
        self.seen_B = None if self.seen_B is None else self.seen_B[rows]
        self.prompt_B = None if self.prompt_B is None else self.prompt_B[rows]

    def fork(self) -> KVCache:
        """A cache that goes on from here on its own; what is held so far is shared until the twin writes."""
        twin = copy.copy(self)
        twin.layers = [layer.fork() for layer in self.layers]
        return twin

    def held_bytes(self) -> int:
        """Bytes of live slots in all layers, keys and values."""
        return sum(t.numel() * t.element_size() for layer in self.layers if layer.is_initialized for t in layer.live())

    def allocated_bytes(self) -> int:
        """Bytes of the buffers, spare room included."""
        return sum(
            t.numel() * t.element_size()
            for layer in self.layers
            if layer.is_initialized
            for t in (layer.keys, layer.values)
        )

    def kept_slots(self) -> float:
        """Mean number of live slots that are not padding, over rows, heads and layers."""
        counts = [
            float(layer.length if layer.valid is None else layer.valid.float().sum(-1).mean())
            for layer in self.layers
            if layer.is_initialized
        ]
        return sum(counts) / max(1, len(counts))
