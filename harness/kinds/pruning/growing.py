"""A buffer of rows, one for each slot or page, that a method fills as the cache grows."""

from __future__ import annotations

from torch import Tensor


def with_room(held: Tensor | None, like_BSNC: Tensor, have: int, count: int) -> Tensor:
    """``held`` where it has room for ``count`` rows, else a buffer with half as many more and its first ``have`` rows.

    Batch, sets, channels and type are those of ``like_BSNC``.
    """
    if held is not None and held.shape[2] >= count:
        return held
    batch, sets, _, channels = like_BSNC.shape
    wider = like_BSNC.new_empty(batch, sets, count + max(64, count // 2), channels)
    if held is not None:
        wider[:, :, :have] = held[:, :, :have]
    return wider
