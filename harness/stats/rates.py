"""Differences of rates over documents of unequal size, as bits per byte are."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import UsageError
from harness.stats.intervals import Estimate

RESAMPLES = 2000


def difference_of_rates(
    candidate: Sequence[float], baseline: Sequence[float], sizes: Sequence[float], level: float = 0.95, seed: int = 0
) -> Estimate:
    """sum(candidate - baseline) / sum(sizes), with the percentile interval over resampled documents.

    Both sides answered the same documents. Raises :class:`UsageError` for unequal lengths and fewer than two documents.
    """
    import numpy as np

    above, below = np.asarray(candidate, float) - np.asarray(baseline, float), np.asarray(sizes, float)
    if len(above) != len(below) or len(above) < 2:
        raise UsageError(f"a difference of rates needs two documents or more, each with a size, not {len(above)}")
    n = len(above)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
    tail = (1 - level) / 2
    low, high = np.quantile((weights @ above) / (weights @ below), [tail, 1 - tail])
    return Estimate(float(above.sum() / below.sum()), float(low), float(high), n)
