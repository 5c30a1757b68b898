"""Bounds on paired blocks against scipy's exact law, hand enumeration, and what shifts and exchanges must do."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from harness.errors import UsageError
from harness.stats.paired import MAX_BLOCKS, critical_rank, signed_rank_bounds

VALUES = [0.013, -0.021, 0.034, 0.008, -0.001, 0.055, 0.0207, 0.0302, -0.0117, 0.0411]


def wilcoxon_p(n, rank_sum):
    """P(T <= rank_sum) by scipy, from values whose positive ranks add up to the sum."""
    values, left = -np.arange(1.0, n + 1), rank_sum
    for rank in range(n, 0, -1):
        if rank <= left:
            values[rank - 1], left = rank, left - rank
    return stats.wilcoxon(values, alternative="less", method="exact").pvalue


@pytest.mark.parametrize("n", [5, 8, 12, 17, 30, 48])
@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.0005, 2e-5])
def test_critical_rank_is_where_the_exact_p_value_passes_the_level(n, alpha):
    k = critical_rank(n, alpha)
    if k:
        assert wilcoxon_p(n, k - 1) <= alpha
    assert wilcoxon_p(n, k) > alpha


def test_critical_rank_agrees_with_the_normal_law_for_many_blocks():
    n, alpha = MAX_BLOCKS, 0.001
    mean, sd = n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    assert critical_rank(n, alpha) == pytest.approx(mean - stats.norm.isf(alpha) * sd, rel=0.005)


def test_a_level_that_is_met_exactly_is_used():
    assert critical_rank(10, 2**-10) == 1
    assert critical_rank(10, 2**-10 * 0.999) == 0
    assert critical_rank(10, 2 * 2**-10) == 2


@pytest.mark.parametrize("n", [1, 3, 6])
@pytest.mark.parametrize("alpha", [0.2, 0.05])
def test_bounds_of_few_blocks_by_enumeration_of_all_signs(n, alpha):
    """The lower bound is the largest value that the signed-rank test rejects, its law enumerated over all signs."""

    def p_value(shift):
        """P that a random choice of signs has a signed-rank sum of the negatives as small as the one seen."""
        off = np.array(VALUES[:n]) - shift
        ranks = stats.rankdata(np.abs(off))
        seen = ranks[off <= 0].sum()
        sums = [
            sum(r for r, sign in zip(ranks, signs, strict=True) if sign)
            for signs in itertools.product((0, 1), repeat=n)
        ]
        return np.mean(np.array(sums) <= seen)

    low = signed_rank_bounds(VALUES[:n], alpha, alpha).low
    if low is None:
        assert p_value(min(VALUES) - 1) > alpha
    else:
        assert p_value(low - 1e-6) <= alpha < p_value(low + 1e-6)


def test_three_blocks_by_hand():
    bounds = signed_rank_bounds([1.0, 2.0, 6.0], 0.25, 0.125)
    assert sorted([1, 2, 6, 1.5, 3.5, 4]) == [1, 1.5, 2, 3.5, 4, 6]
    assert bounds.estimate == pytest.approx(2.75)
    assert bounds.low == 1.5, "P(T <= 1) = 2/8: the second smallest"
    assert bounds.high == 6.0, "P(T <= 0) = 1/8: the largest"
    assert bounds.n == 3


def test_too_few_blocks_have_an_estimate_and_no_bound():
    bounds = signed_rank_bounds(VALUES[:4], 0.06, 0.07)
    assert bounds.low is None
    assert bounds.high == max(VALUES[:4])
    assert signed_rank_bounds([0.3], 0.4, 0.4) == type(bounds)(0.3, None, None, 1)


def test_bounds_move_with_a_shift_and_change_places_with_the_sides():
    plain = signed_rank_bounds(VALUES, 0.05, 0.01)
    shifted = signed_rank_bounds([v + 0.5 for v in VALUES], 0.05, 0.01)
    assert (shifted.estimate, shifted.low, shifted.high) == pytest.approx(
        (plain.estimate + 0.5, plain.low + 0.5, plain.high + 0.5)
    )
    exchanged = signed_rank_bounds([-v for v in VALUES], 0.01, 0.05)
    assert (exchanged.estimate, exchanged.low, exchanged.high) == pytest.approx(
        (-plain.estimate, -plain.high, -plain.low)
    )
    assert signed_rank_bounds(VALUES[::-1], 0.05, 0.01) == plain


def test_a_smaller_level_makes_wider_bounds():
    wide, narrow = signed_rank_bounds(VALUES, 0.002, 0.002), signed_rank_bounds(VALUES, 0.1, 0.1)
    assert wide.low < narrow.low < narrow.estimate < narrow.high < wide.high


def test_one_burst_hardly_moves_the_bounds():
    plain, hit = signed_rank_bounds(VALUES, 0.05, 0.05), signed_rank_bounds([*VALUES[:-1], 5.0], 0.05, 0.05)
    assert hit.low == pytest.approx(plain.low, abs=0.01)
    assert hit.high < 0.1


def test_ties_never_make_a_bound_err_more_often():
    rng = np.random.default_rng(0)
    series = rng.choice([-0.01, 0.0, 0.01], (2000, 15), p=[0.3, 0.4, 0.3])
    errors = sum(signed_rank_bounds(values, 0.1, 0.1).low > 0 for values in series)
    assert stats.binomtest(errors, 2000, 0.1, alternative="greater").pvalue > 0.001
    assert signed_rank_bounds([0.02] * 12, 0.05, 0.05).low == 0.02


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf, 0.1], [0.0] * (MAX_BLOCKS + 1)])
def test_values_that_cannot_be_judged_are_refused(values):
    with pytest.raises(UsageError, match="paired block"):
        signed_rank_bounds(values, 0.05, 0.05)


def test_as_many_blocks_as_are_allowed():
    values = np.random.default_rng(0).normal(0.01, 0.02, MAX_BLOCKS)
    bounds = signed_rank_bounds(values, 1e-5, 1e-5)
    assert 0 < bounds.low < 0.01 < bounds.high
