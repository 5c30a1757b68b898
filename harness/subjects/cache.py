"""The key/value cache of the zoo: preallocated, prunable, able to roll back and to serve draft trees.

One forward appends its tokens to every layer; :meth:`KVCache.commit` then keeps all of them or, after a draft tree,
the accepted path only. A pruning method supplies an ``evict`` function; it sees each layer through a
:class:`LayerView` and names the slots to keep, and the others are really freed (while decoding it may name those to
drop, and the newest take their places); or a ``select`` function, which names
the slots that each query reads, and all stay.

Slots carry rotated keys, so they can be moved and dropped freely; a row's next position is the number of tokens it
has *seen*, not the number of slots it holds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from harness.subjects.kv_layer import KVLayer
from harness.subjects.views import Drop, Evict, LayerView, QueryView, Select, Selection


class KVCache(Cache):  # type: ignore[misc]
    """All layers of one batch. ``evict`` makes it a pruned cache; ``evict_while_decoding`` calls it after each step.

    ``new_layer`` makes layers that hold their slots in another way.
    ``select`` makes attention read part of the slots. ``read`` and ``scored`` are sums over layers and forwards after
    the prompt: the part of the slots' bytes that were read, and that were read to select; ``reads`` counts them.
    """

    def __init__(
        self,
        num_layers: int,
        evict: Evict | None = None,
        evict_while_decoding: bool = False,
        select: Select | None = None,
        new_layer: Callable[[], KVLayer] = KVLayer,
    ) -> None:
        super().__init__(layers=[new_layer() for _ in range(num_layers)])
        self.evict = evict
        self.evict_while_decoding = evict_while_decoding
        self.select = select
        self.read = self.scored = 0.0
        self.reads = 0
        self.seen_B: Tensor | None = None
        self.prompt_B: Tensor | None = None
        self.pending = 0
        self.rows = 0

    @property
    def token_by_token(self) -> bool:
        """Whether slots change between tokens, so that several tokens in one forward are not read as if decoded."""
        return self.evict_while_decoding or any(layer.settles for layer in self.layers)

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
        self.rows = valid_BT.shape[0]
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

    def selection(self, index: int, queries_BHTD: Tensor, allowed: Tensor | None, scaling: float) -> Selection | None:
        """Slots of layer ``index`` that the new tokens read; None for all of them."""
        if self.select is None:
            return None
        layer: KVLayer = self.layers[index]
        committed = layer.length - self.pending
        keys, _ = layer.live()
        view = QueryView(
            index, len(self.layers), self.phase, queries_BHTD, keys, allowed, committed, scaling, layer.scratch
        )
        chosen = self.select(view)
        if self.phase == "decode":
            self.reads += 1
            self.read += 1.0 if chosen is None else chosen.scored + chosen.index_BSTK.shape[-1] / layer.length
            self.scored += 0.0 if chosen is None else chosen.scored
        return chosen

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
            layer.memory,
        )
        answer = self.evict(view)
        if isinstance(answer, Drop):
            layer.drop(answer.index_BHT)
        elif answer is not None:
            layer.keep(*answer, room=64 if self.phase == "prefill" else 0)

    def commit(self, path: Tensor | None = None) -> None:
        """Keep all tokens since the last commit, or those at ``path`` (indices into them) only.

        An empty path rolls them back.
        """
        count = self.pending if path is None else len(path)
        if path is not None and count < self.pending:
            for layer in self.layers:
                layer.keep_of_last(self.pending, path)
        if self.evict_while_decoding and self.phase == "decode" and count:
            for index, layer in enumerate(self.layers):
                queries = layer.last_queries if path is None else layer.last_queries[:, :, path]
                self._evict_layer(index, queries, layer.scaling)
                layer.last_queries = None
        for layer in self.layers:
            layer.settle()
        self.pending = 0

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

    def rewind(self, length_B: Tensor) -> None:
        """Let each row go on after its first ``length_B`` tokens, as if those after them had not been read.

        For rows without padding of which nothing was evicted.
        """
        before_B1N = torch.arange(self.layers[0].length, device=length_B.device) < length_B[:, None, None]
        for layer in self.layers:
            layer.valid = before_B1N
        self.seen_B = length_B

    def fork(self) -> KVCache:
        """A cache that goes on from here on its own; what is held so far is shared until the twin writes."""
        twin = copy.copy(self)
        twin.layers = [layer.fork() for layer in self.layers]
        return twin

    def held_bytes(self) -> int:
        """Bytes of live slots in all layers, keys and values."""
        return sum(layer.held_bytes() for layer in self.layers if layer.is_initialized)

    def allocated_bytes(self) -> int:
        """Bytes of the buffers, spare room included."""
        return sum(layer.allocated_bytes() for layer in self.layers if layer.is_initialized)

    def kept_slots(self) -> float:
        """Mean number of live slots that are not padding, over rows, heads and layers."""
        counts = [
            float(layer.length if layer.valid is None else layer.valid.float().sum(-1).mean())
            for layer in self.layers
            if layer.is_initialized
        ]
        return sum(counts) / max(1, len(counts))
