"""The studentised bootstrap of a mean over independent units that may differ in size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

FEWEST, MOST = 1_999, 50_000
BATCH = 4_000_000
"""Chosen units that are held in memory at once."""


def bootstrap_roots(residuals: Array, weights: Array, tail: float, seed: int) -> Array:
    """(mean* - mean) / error* over resamples of whole units; infinite where a resample has no spread of its own.

    ``residuals`` (mean 0) is what each unit adds to the error of the mean, ``weights`` (mean 1) its size. There are
    enough resamples to read the quantile at ``tail``. Scipy's bootstrap offers no studentised interval.
    """
    import numpy as np

    n = len(residuals)
    rng = np.random.default_rng(seed)
    draws = min(max(FEWEST, math.ceil(20 / tail)), MOST)
    moments = (residuals, weights, residuals**2, residuals * weights, weights**2)
    step, batches = max(1, BATCH // n), []
    for at in range(0, draws, step):
        chosen = rng.integers(n, size=(min(step, draws - at), n), dtype=np.int32)
        batches.append([moment[chosen].sum(axis=1) for moment in moments])
    total, size, squares, cross, size_squares = np.concatenate(batches, axis=1)
    shift = total / size
    squared_residuals = np.maximum(squares - 2 * shift * cross + shift**2 * size_squares, 0)
    error = np.sqrt(squared_residuals * n / (n - 1)) / size
    flat = error <= 1e-9 * np.sqrt(moments[2].mean() / n)
    roots: Array = np.where(flat, np.copysign(np.inf, shift), shift / np.where(flat, 1.0, error))
    return np.where(flat & (shift == 0), 0.0, roots)
