"""Rates over documents of unequal size, as bits per byte are, and their differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.stats.intervals import Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES, RESAMPLES_OF_DIFFERENCES = 1000, 2000


def draw_weights(num_documents: int, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """How often each document is drawn in each resample, ``[resamples, documents]``."""
    import numpy as np

    even = np.full(num_documents, 1 / num_documents)
    return np.random.default_rng(seed).multinomial(num_documents, even, size=resamples).astype(np.float64)


def rate(above_D: Floats, below_D: Floats, weights_RD: Floats, level: float = 0.95) -> Estimate:
    """sum(above) / sum(below), with the percentile interval over the resampled documents."""
    import numpy as np

    tail = (1 - level) / 2
    low, high = np.quantile((weights_RD @ above_D) / (weights_RD @ below_D), [tail, 1 - tail])
    return Estimate(float(above_D.sum() / below_D.sum()), float(low), float(high), len(above_D))


def difference_of_rates(
    candidate: Sequence[float], baseline: Sequence[float], sizes: Sequence[float], level: float = 0.95, seed: int = 0
) -> Estimate:
    """sum(candidate - baseline) / sum(sizes), with the percentile interval over resampled documents.

    Both sides answered the same documents. Raises :class:`UsageError` for unequal lengths and fewer than two documents.
    """
    import numpy as np

    above = np.asarray(candidate, float) - np.asarray(baseline, float)
    if len(above) != len(sizes) or len(above) < 2:
        raise UsageError(f"a difference of rates needs two documents or more, each with a size, not {len(above)}")
    return rate(above, np.asarray(sizes, float), draw_weights(len(above), RESAMPLES_OF_DIFFERENCES, seed), level)
