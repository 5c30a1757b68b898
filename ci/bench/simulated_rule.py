"""The gate's rule on many simulated comparisons at once, and the rules of two other tools on the same samples.

A bound from Walsh averages lies above a value exactly where fewer than ``critical_rank`` of the averages do not exceed
it, and without ties the number of Walsh averages up to a value is the signed-rank sum of the blocks below it. So a
comparison needs one sort instead of n (n + 1) / 2 averages; the tests hold this against ``run_looks``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ci.bench.noise_models import Array, Pairs
from harness.stats.paired import critical_rank
from harness.stats.sequential import look_sizes

INCONCLUSIVE, PASS, REGRESSION = 0, 1, 2


@dataclass(frozen=True)
class Rule:
    """Margin and error rates of one comparison, and how many blocks its budget buys."""

    margin: float
    false_alarm: float
    false_pass: float
    planned: int


@dataclass
class Outcomes:
    """What came out of N comparisons, and after how many blocks."""

    outcome_N: NDArray[np.int8]
    blocks_N: NDArray[np.int32]

    def share(self, outcome: int) -> float:
        """Share of the comparisons with this outcome."""
        return float(np.mean(self.outcome_N == outcome))

    @property
    def alarms_N(self) -> NDArray[np.bool_]:
        """Which comparisons are called regressions."""
        return np.asarray(self.outcome_N == REGRESSION)


def rank_sum_below(ratio_NB: Array, value_N: Array) -> NDArray[np.int64]:
    """Sum of the signed ranks at or below a value: the number of Walsh averages that do not exceed it."""
    off_NB = ratio_NB - value_N[:, None]
    order_NB = np.argsort(np.abs(off_NB), axis=1)
    below_NB = np.take_along_axis(off_NB <= 0, order_NB, axis=1)
    return np.asarray(below_NB @ np.arange(1, ratio_NB.shape[1] + 1))


def judge_look(ratio_NB: Array, floor_N: Array, rule: Rule, share: float) -> NDArray[np.int8]:
    """One look at N comparisons, as ``harness.stats.sequential.judge`` does it for one."""
    n = ratio_NB.shape[1]
    low_rank = critical_rank(n, rule.false_alarm * share)
    high_rank = critical_rank(n, rule.false_pass * share)
    outcome_N = np.zeros(len(ratio_NB), dtype=np.int8)
    if low_rank:
        outcome_N[rank_sum_below(ratio_NB, np.log1p(floor_N)) < low_rank] = REGRESSION
    if high_rank:
        at_least_N = n * (n + 1) // 2 - rank_sum_below(ratio_NB, np.full(len(ratio_NB), np.log1p(rule.margin)))
        outcome_N[at_least_N < high_rank] = PASS
    return outcome_N


def judge_all(pairs: Pairs, floor_N: Array, rule: Rule) -> Outcomes:
    """All looks at N comparisons; blocks are drawn only for those that are not decided."""
    count = len(floor_N)
    found = Outcomes(np.zeros(count, dtype=np.int8), np.zeros(count, dtype=np.int32))
    alive, ratio_NB, spent = np.arange(count), np.empty((count, 0)), 0.0
    for size in look_sizes(rule.planned):
        ratio_NB = np.concatenate([ratio_NB, pairs.more(size - ratio_NB.shape[1])], axis=1)
        share = 1 - spent if size >= rule.planned else size / rule.planned - spent
        outcome_N = judge_look(ratio_NB, floor_N[alive], rule, share)
        found.outcome_N[alive], found.blocks_N[alive] = outcome_N, size
        spent += share
        open_N = outcome_N == INCONCLUSIVE
        alive, ratio_NB = alive[open_N], ratio_NB[open_N]
        pairs.keep(open_N)
        if not len(alive):
            break
    return found


def min_rule(head_NV: Array, base_NV: Array) -> NDArray[np.bool_]:
    """pytest-benchmark with ``--benchmark-compare-fail=min:5%``."""
    return np.asarray(np.exp(head_NV.min(axis=1) - base_NV.min(axis=1)) * 100 - 100 > 5)


def mean_rule(head_NV: Array, base_NV: Array) -> NDArray[np.bool_]:
    """pytest-benchmark with ``--benchmark-compare-fail=mean:10%``."""
    return np.asarray(np.exp(head_NV).mean(axis=1) / np.exp(base_NV).mean(axis=1) * 100 - 100 > 10)


def asv_rule(head_NV: Array, base_NV: Array) -> NDArray[np.bool_]:
    """``asv continuous``: the ratio of medians exceeds 1.1, and the samples differ.

    With ten samples a side its test of a difference is always the exact two-sided U test at 0.002; its other branch,
    99 % intervals that do not meet, is for samples too small to reach that level.
    """
    from scipy.stats import mannwhitneyu

    alarm_N = np.exp(np.median(head_NV, axis=1) - np.median(base_NV, axis=1)) > 1.1
    if alarm_N.any():
        test = mannwhitneyu(head_NV[alarm_N], base_NV[alarm_N], axis=1, method="exact")
        alarm_N[alarm_N] = test.pvalue < 0.002
    return np.asarray(alarm_N)


OTHER_RULES = {"min:5%": min_rule, "mean:10%": mean_rule, "asv": asv_rule}
