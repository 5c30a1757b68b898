"""A few channels of every key, laid side by side, so that scoring by them reads those bytes and no others."""

from __future__ import annotations

from torch import Tensor

from harness.kinds.pruning.growing import with_room
from harness.subjects.views import QueryView


def packed_keys(view: QueryView, channel_SC: Tensor) -> Tensor:
    """Channels ``channel_SC`` of all live keys, ``[B, S, N, C]``; ``S`` is the key/value heads or the query heads.

    Rows that are committed are copied once; a buffer that grows by half holds them.
    """
    keys, have = view.keys_BGND, view.scratch.get("packed_rows", 0)
    fresh = keys[:, :, have:].repeat_interleave(len(channel_SC) // keys.shape[1], 1)
    fresh = fresh.gather(3, channel_SC[None, :, None].expand(len(keys), -1, fresh.shape[2], -1))
    buffer = with_room(view.scratch.get("packed"), fresh, have, view.num_slots)
    buffer[:, :, have : view.num_slots] = fresh
    view.scratch["packed"] = buffer
    view.scratch["packed_rows"] = view.committed
    packed: Tensor = buffer[:, :, : view.num_slots]
    return packed
