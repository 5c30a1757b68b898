"""Intervals of paired measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A figure with its two-sided interval and the number of independent values behind it."""

    value: float
    low: float | None
    high: float | None
    n: int


def mean_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean with Student's t interval; no interval from fewer than two values."""
    from scipy.special import stdtrit  # scipy.stats takes several times as long to import

    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Estimate(mean, None, None, n)
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * math.sqrt(variance / n)
    return Estimate(mean, mean - half, mean + half, n)


def ratio_interval(numerator: Sequence[float], denominator: Sequence[float], level: float = 0.95) -> Estimate:
    """Geometric mean of paired ratios; the interval comes from the log ratios, pair by pair."""
    logs = [math.log(a / b) for a, b in zip(numerator, denominator, strict=True)]
    estimate = mean_interval(logs, level)
    low, high = (None if v is None else math.exp(v) for v in (estimate.low, estimate.high))
    return Estimate(math.exp(estimate.value), low, high, estimate.n)
