"""The studentised bootstrap of a mean over independent units that may differ in size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

FEWEST = 1_999
WORK = 50_000_000
"""Units chosen in all, so that a gate over thousands of documents takes a second; never fewer resamples than FEWEST."""
BATCH = 4_000_000
"""Chosen units that are held in memory at once."""


def bootstrap_roots(residuals: Array, weights: Array, tail: float, seed: int) -> Array:
    """(mean* - mean) / error* over resamples of whole units; infinite where a resample has no spread of its own.

    ``residuals`` (mean 0) is what each unit adds to the error of the mean, ``weights`` (mean 1) its size. There are
    20 / ``tail`` resamples where :data:`WORK` allows it. Scipy's bootstrap offers no studentised interval.
    """
    import numpy as np

    n = len(residuals)
    rng = np.random.default_rng(seed)
    draws = max(FEWEST, min(math.ceil(20 / tail), WORK // n))
    equal = bool((weights == 1).all())
    moments = (residuals, residuals**2, *(() if equal else (weights, residuals * weights, weights**2)))
    step, batches = max(1, BATCH // n), []
    for at in range(0, draws, step):
        chosen = rng.integers(n, size=(min(step, draws - at), n), dtype=np.int32)
        batches.append([moment[chosen].sum(axis=1) for moment in moments])
    total, squares, *weighted = np.concatenate(batches, axis=1)
    size, cross, size_squares = weighted if weighted else (np.full(draws, float(n)), total, np.full(draws, float(n)))
    shift = total / size
    squared_residuals = np.maximum(squares - 2 * shift * cross + shift**2 * size_squares, 0)
    error = np.sqrt(squared_residuals * n / (n - 1)) / size
    flat = error <= 1e-9 * np.sqrt(moments[1].mean() / n)
    roots: Array = np.where(flat, np.copysign(np.inf, shift), shift / np.where(flat, 1.0, error))
    return np.where(flat & (shift == 0), 0.0, roots)
