"""Adjusted p-values against published examples, definitions and simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.errors import UsageError
from harness.stats.family import benjamini_hochberg, holm

# The fifteen tests of Benjamini and Hochberg, Journal of the Royal Statistical Society B 57, 1995.
THROMBOLYSIS = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
THROMBOLYSIS += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_holm_on_a_worked_example():
    family = holm([0.01, 0.04, 0.03, 0.005], 0.05)
    assert family.adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert family.rejected == [True, False, False, True]


def test_the_published_fifteen_tests():
    assert holm(THROMBOLYSIS, 0.05).rejected == [True] * 3 + [False] * 12
    assert benjamini_hochberg(THROMBOLYSIS, 0.05).rejected == [True] * 4 + [False] * 11


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_is_the_closed_test_with_bonferroni(p_values, alpha):
    """A hypothesis is rejected when every intersection that contains it is rejected by Bonferroni's test."""
    indices = range(len(p_values))
    subsets = [s for r in indices for s in itertools.combinations(indices, r + 1)]
    adjusted = [max(min(1.0, len(s) * min(p_values[k] for k in s)) for s in subsets if i in s) for i in indices]
    family = holm(p_values, alpha)
    assert family.adjusted == pytest.approx(adjusted)
    assert family.rejected == [p <= alpha for p in family.adjusted]


@given(P_VALUES, st.randoms())
def test_order_does_not_matter(p_values, random):
    order = list(range(len(p_values)))
    random.shuffle(order)
    for rule in (holm, benjamini_hochberg):
        adjusted = rule(p_values, 0.05).adjusted
        assert rule([p_values[i] for i in order], 0.05).adjusted == pytest.approx([adjusted[i] for i in order])


@given(P_VALUES)
def test_false_discovery_control_rejects_at_least_what_holm_does(p_values):
    strict, loose = holm(p_values, 0.05), benjamini_hochberg(p_values, 0.05)
    assert all(a >= b - 1e-12 >= p - 2e-12 for a, b, p in zip(strict.adjusted, loose.adjusted, p_values, strict=True))


def test_holm_keeps_the_error_of_the_family():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        shared = rng.normal()  # dependent tests
        p_values = stats.norm.sf(0.6 * shared + 0.8 * rng.normal(size=20))
        alarms += any(holm(p_values.tolist(), 0.05).rejected)
    assert stats.binomtest(alarms, 2000, 0.05, alternative="greater").pvalue > 1e-3


@pytest.mark.parametrize("rule", [holm, benjamini_hochberg])
def test_empty_families_and_bad_values(rule):
    assert rule([], 0.05).adjusted == rule([], 0.05).rejected == []
    assert rule([0.04], 0.05).adjusted == [0.04]
    for p_values, alpha in (([0.1, float("nan")], 0.05), ([-0.1], 0.05), ([1.1], 0.05), ([0.5], 0.0)):
        with pytest.raises(UsageError):
            rule(p_values, alpha)
