"""Percentiles against numpy, their bounds against published ranks, simulation and the rule for tails."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.errors import UsageError
from harness.stats.tails import quantile, quantile_bounds, tail_supported


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_quantile_is_numpys(values, p):
    assert quantile(values, p) == pytest.approx(float(np.quantile(values, p)), abs=1e-6)


def test_a_tail_needs_enough_values():
    assert not tail_supported(28, 0.9) and tail_supported(29, 0.9)
    assert not tail_supported(298, 0.99) and tail_supported(299, 0.99)
    assert 0.99**299 <= 0.05 < 0.99**298


@pytest.mark.parametrize(
    ("n", "low", "high"), [(6, 1, 6), (8, 1, 8), (10, 2, 9), (15, 4, 12), (20, 6, 15), (30, 10, 21)]
)
def test_ranks_around_a_median_are_the_tabulated_ones(n, low, high):
    bounds = quantile_bounds(range(1, n + 1), 0.5)
    assert (bounds.low, bounds.high, bounds.n) == (low, high, n)


@given(st.integers(1, 400), st.sampled_from([0.5, 0.9, 0.95, 0.99]), st.sampled_from([0.8, 0.9, 0.98]))
def test_an_upper_bound_exists_exactly_where_the_tail_is_supported(n, p, confidence):
    bounds = quantile_bounds(list(range(n)), p, confidence)
    assert (bounds.high is not None) == tail_supported(n, p, (1 + confidence) / 2)


@given(st.integers(2, 200), st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9]), st.sampled_from([0.9, 0.95, 0.99]))
def test_ranks_are_the_tightest_that_keep_the_level(n, p, confidence):
    tail, bounds = (1 - confidence) / 2, quantile_bounds(range(1, n + 1), p, confidence)
    if bounds.low is not None:  # it errs when fewer than `low` values lie below the quantile
        assert stats.binom.cdf(bounds.low - 1, n, p) <= tail < stats.binom.cdf(bounds.low, n, p) + 1e-12
    if bounds.high is not None:
        assert stats.binom.sf(bounds.high - 1, n, p) <= tail + 1e-12 < stats.binom.sf(bounds.high - 2, n, p) + 2e-12


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60))
def test_mirrored_values_mirror_the_bounds(values):
    one, other = quantile_bounds(values, 0.5), quantile_bounds([-v for v in values], 0.5)
    assert (other.low, other.high) == tuple(None if v is None else -v for v in (one.high, one.low))


def test_bounds_hold_for_a_law_without_a_mean():
    rng = np.random.default_rng(0)
    truth, misses = float(stats.cauchy.ppf(0.9)), np.zeros(2)
    for _ in range(2000):
        bounds = quantile_bounds(rng.standard_cauchy(60).tolist(), 0.9, 0.9)
        misses += bounds.low > truth, bounds.high < truth
    for count in misses:
        assert stats.binomtest(int(count), 2000, 0.05, alternative="greater").pvalue > 1e-3


def test_one_value_bounds_nothing():
    bounds = quantile_bounds([3.0], 0.5)
    assert (bounds.value, bounds.low, bounds.high, bounds.n) == (3.0, None, None, 1)


@pytest.mark.parametrize(
    ("values", "p", "confidence"),
    [([], 0.5, 0.9), ([1.0, float("nan")], 0.5, 0.9), ([float("inf")], 0.5, 0.9), ([1.0], 0, 0.9), ([1.0], 0.5, 1)],
)
def test_bad_input_is_refused(values, p, confidence):
    with pytest.raises(UsageError):
        quantile_bounds(values, p, confidence)
