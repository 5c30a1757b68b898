"""Quantiles of a sample, how far into the tail it can be read, and bounds that need no law of the values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.errors import UsageError
from harness.stats.intervals import Estimate


def quantile(values: Sequence[float], p: float) -> float:
    """Linear-interpolation quantile."""
    ordered = sorted(values)
    place = p * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def tail_supported(n: int, p: float, confidence: float = 0.95) -> bool:
    """Whether ``n`` values carry an upper bound of the ``p`` quantile: some value lies above it with ``confidence``.

    The chance that none of n values exceeds the true quantile is p ** n.
    """
    return p**n <= 1 - confidence


def quantile_bounds(values: Sequence[float], p: float, confidence: float = 0.95) -> Estimate:
    """The ``p`` quantile with order statistics as its two-sided interval, whatever law the values follow.

    How many of n independent values lie below the true quantile is Binomial(n, p); each bound is the order statistic
    that errs with probability (1 - confidence) / 2 at most. A bound is None where the sample is too small to have one:
    the upper one needs :func:`tail_supported` at (1 + confidence) / 2. Raises :class:`UsageError` for no value, a value
    that is not finite, and a ``p`` or ``confidence`` outside (0, 1).
    """
    from scipy import stats

    if not (0 < p < 1 and 0 < confidence < 1):
        raise UsageError(f"a quantile and its confidence lie between 0 and 1, not {p} and {confidence}")
    if len(values) == 0 or not all(map(math.isfinite, values)):
        raise UsageError("bounds of a quantile need at least one value, all of them finite")
    ordered, n, tail = sorted(values), len(values), (1 - confidence) / 2
    low = int(stats.binom.ppf(tail, n, p))  # P(fewer than `low` values below the quantile) < tail
    high = int(stats.binom.isf(tail, n, p)) + 1  # P(`high` values or more below it) <= tail
    return Estimate(
        value=quantile(ordered, p),
        low=ordered[low - 1] if low >= 1 else None,
        high=ordered[high - 1] if high <= n else None,
        n=n,
    )
