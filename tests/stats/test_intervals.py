"""Intervals against scipy and simulation."""

import numpy as np
import pytest
from scipy import stats

from harness.stats.intervals import mean_interval, ratio_interval


def test_mean_interval_is_students():
    values = [1.0, 2.0, 4.0, 3.5]
    estimate = mean_interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def test_one_value_has_no_interval():
    estimate = mean_interval([2.5])
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (2.5, None, None, 1)


def test_ratio_is_symmetric_in_logs():
    up, down = ratio_interval([2, 4, 8], [1, 1, 2]), ratio_interval([1, 1, 2], [2, 4, 8])
    assert up.value == pytest.approx(1 / down.value)
    assert up.low == pytest.approx(1 / down.high)


def test_ratio_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        base = rng.lognormal(0, 0.3, 6)
        ratio = ratio_interval(base * 1.2 * rng.lognormal(0, 0.05, 6), base)
        hits += ratio.low <= 1.2 <= ratio.high
    assert 0.91 <= hits / 400 <= 0.98
