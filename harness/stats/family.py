"""Decisions over a family of tests: bound the chance of any false alarm, or the share of false ones among alarms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UsageError


@dataclass(frozen=True)
class Family:
    """For each test in the order given: the adjusted p-value, and whether it is at most ``alpha``."""

    adjusted: list[float]
    rejected: list[bool]


def holm(p_values: Sequence[float], alpha: float) -> Family:
    """Holm's step-down test: with probability 1 - alpha no true hypothesis of the family is rejected.

    It holds for any dependence between the tests. The i-th smallest of m p-values, i = 0 .. m - 1, is multiplied by
    m - i; an adjusted value is never below that of a smaller p-value. Raises :class:`UsageError` for values outside
    [0, 1]. Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    _validate(p_values, alpha)
    m, floor = len(p_values), 0.0
    adjusted = [0.0] * m
    for i, test in enumerate(sorted(range(m), key=p_values.__getitem__)):
        floor = max(floor, min(1.0, (m - i) * p_values[test]))
        adjusted[test] = floor
    return Family(adjusted, [p <= alpha for p in adjusted])


def benjamini_hochberg(p_values: Sequence[float], alpha: float) -> Family:
    """Step-up test: among the rejected, the expected share of true hypotheses is at most ``alpha``.

    It holds for independent and for positively dependent tests. Raises :class:`UsageError` for values outside [0, 1].
    """
    from scipy import stats

    _validate(p_values, alpha)
    adjusted = [float(p) for p in stats.false_discovery_control(p_values)] if len(p_values) else []
    return Family(adjusted, [p <= alpha for p in adjusted])


def _validate(p_values: Sequence[float], alpha: float) -> None:
    if not 0 < alpha < 1:
        raise UsageError(f"an error rate lies between 0 and 1, not {alpha}")
    wrong = [p for p in p_values if math.isnan(p) or not 0 <= p <= 1]
    if wrong:
        raise UsageError(f"a p-value lies between 0 and 1, not {wrong[0]}")
