"""A few channels of every key, laid side by side, so that scoring by them reads those bytes and no others."""

from __future__ import annotations

from torch import Tensor

from harness.subjects.views import QueryView


def packed_keys(view: QueryView, channel_SC: Tensor) -> Tensor:
    """Channels ``channel_SC`` of all live keys, ``[B, S, N, C]``; ``S`` is the key/value heads or the query heads.

    Rows that are committed are copied once; a buffer that grows by half holds them.
    """
    sets, channels = channel_SC.shape
    keys = view.keys_BGND
    buffer, have = view.scratch.get("packed"), view.scratch.get("packed_rows", 0)
    if buffer is None or buffer.shape[2] < view.num_slots:
        wider = keys.new_empty(len(keys), sets, view.num_slots + max(64, view.num_slots // 2), channels)
        if buffer is not None:
            wider[:, :, :have] = buffer[:, :, :have]
        buffer = view.scratch["packed"] = wider
    fresh = keys[:, :, have:].repeat_interleave(sets // keys.shape[1], 1)
    wanted = channel_SC[None, :, None].expand(len(keys), -1, fresh.shape[2], -1)
    buffer[:, :, have : view.num_slots] = fresh.gather(3, wanted)
    view.scratch["packed_rows"] = view.committed
    packed: Tensor = buffer[:, :, : view.num_slots]
    return packed
