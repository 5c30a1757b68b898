"""Two methods answered the same documents: is the candidate worse, and by how much at most?

Documents are independent units, or clusters of documents that share a source. Three intervals of the mean difference,
each where enumeration or simulation found it closest to its level (figures: ``tests/stats/test_quality.py``; fewer than
20 strongly skewed differences are covered too rarely, 92 % instead of 95 % at 20 and 82 % at 5):

- 0/1 values: Tango's score interval with a continuity correction of one document. Without the correction, and in
  Newcombe's interval, a one-sided error of 1 % is really up to 2 % and 8 %.
- Other values, or clusters: the hull of Student's t and the studentised bootstrap over units. Either alone misses
  skewed differences more often; so do the percentile and BCa bootstraps.
- Other values where nearly all units have the same difference: neither variance nor bootstrap sees what a rare unit can
  do. The score interval again, with each difference counted as a part of the widest difference that the values allow.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.stats.intervals import Estimate
from harness.stats.resample import bootstrap_roots
from harness.stats.score import score_interval

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

FEW_APART = 10
"""Where most units have the same difference, so many others must stand apart from it before a variance is believed."""
FEW_UNITS = 8
"""Fewer units than this have too few distinct resamples: Student's t alone."""
SAME = 12
"""Differences that agree to so many decimals of the values' range are the same; what is left is rounding."""


@dataclass(frozen=True)
class McNemar:
    """Discordant documents (only the candidate right; only the baseline right) and exact binomial p-values."""

    gained: int
    lost: int
    p_two_sided: float
    p_worse: float


@dataclass(frozen=True)
class NonInferiority:
    """Whether a loss stays below a margin.

    ``verdict`` is ``pass``, ``worse`` or ``inconclusive``; ``loss`` is the mean loss (positive: the candidate is worse)
    with bounds that each hold at 1 - alpha; ``p_worse`` is the p-value of "not worse" (small: worse; resamples resolve
    it to alpha / 20), None without an interval; ``detectable`` is the smallest true loss found with power 0.8.
    """

    verdict: str
    loss: Estimate
    p_worse: float | None
    detectable: float | None


@dataclass(frozen=True)
class _Units:
    """Differences by independent unit, scaled by ``span``: 1 for 0/1 values, else the range of all values seen.

    ``sums`` and ``sizes`` (documents) by unit; ``binary``: 0/1 values of single documents. All else is in spans.
    """

    sums: Array
    sizes: Array
    span: float
    binary: bool

    @property
    def n(self) -> int:
        return len(self.sums)

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def weights(self) -> Array:
        """Sizes in units of their mean."""
        weights: Array = self.sizes / self.sizes.mean()
        return weights

    @property
    def residuals(self) -> Array:
        """What a unit adds to the error of the mean (the linearised ratio, where sizes differ); their mean is 0."""
        residuals: Array = (self.sums - self.mean * self.sizes) / self.sizes.mean()
        return residuals

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return float(self.residuals.std(ddof=1)) / math.sqrt(self.n)

    @property
    def reach(self) -> float:
        """The most that a unit can move n times the mean: a large cluster more than its share among the clusters."""
        return float(self.weights.max())

    @property
    def masses(self) -> tuple[float, float]:
        """How many units of the widest difference the gains and the losses amount to."""
        parts = self.sums / self.sizes.mean() / self.reach
        return float(parts[parts > 0].sum()), float(-parts[parts < 0].sum())

    def counted(self) -> bool:
        """Whether the units are counted as gains and losses, because their variance cannot be believed."""
        import numpy as np

        _, counts = np.unique(np.round(self.sums / self.sizes, SAME), return_counts=True)
        return self.binary or (2 * counts.max() > self.n and self.n - counts.max() < FEW_APART)


def mcnemar(candidate: Sequence[float], baseline: Sequence[float]) -> McNemar:
    """Exact McNemar test of 0/1 values: among discordant documents, gains and losses are equally likely.

    ``p_worse`` is one-sided for "the candidate is worse". Raises :class:`UsageError` for values other than 0 and 1.
    """
    from scipy import stats

    new, old = _arrays(candidate, baseline)
    if not _is_binary(new, old):
        raise UsageError("McNemar's test needs values of 0 and 1; use the paired difference for other values")
    gained, lost = int((new > old).sum()), int((new < old).sum())
    if gained + lost == 0:
        return McNemar(0, 0, 1.0, 1.0)
    two_sided = stats.binomtest(lost, gained + lost).pvalue
    worse = stats.binomtest(lost, gained + lost, alternative="greater").pvalue
    return McNemar(gained, lost, float(two_sided), float(worse))


def paired_difference(
    candidate: Sequence[float],
    baseline: Sequence[float],
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Estimate:
    """Mean of candidate minus baseline over documents, with a two-sided interval that errs equally on both sides.

    ``clusters`` labels documents that share a source; whole clusters are then the units, and ``n`` counts them.
    No interval (None) from a single unit, and where all values of both sides are one constant other than 0 or 1: such
    a sample says nothing about the reach of a difference. Raises :class:`UsageError` for unequal lengths, no document,
    values that are not finite and a ``level`` outside (0, 1).
    """
    if not 0 < level < 1:
        raise UsageError(f"a confidence level lies between 0 and 1, not {level}")
    units, tail = _units(candidate, baseline, clusters), (1 - level) / 2
    return _estimate(units, tail, _roots(units, tail, seed))


def non_inferiority(
    candidate: Sequence[float],
    baseline: Sequence[float],
    margin: float,
    alpha: float = 0.05,
    clusters: Sequence[Hashable] | None = None,
    higher_is_better: bool = True,
    seed: int = 0,
) -> NonInferiority:
    """Whether the candidate loses less than ``margin`` in the mean (in the unit of the values).

    The rule: ``pass`` when the upper bound of the loss lies below the margin; ``worse`` when it does not and the lower
    bound lies above 0; else ``inconclusive``. Each bound errs with probability ``alpha``. Raises :class:`UsageError`
    as :func:`paired_difference` does, for a margin that is not positive, and for an ``alpha`` outside (0, 0.5).
    """
    if not (margin > 0 and math.isfinite(margin)):
        raise UsageError(f"a margin is a positive loss in the unit of the metric, not {margin}")
    if not 0 < alpha < 0.5:
        raise UsageError(f"an error rate lies between 0 and 0.5, not {alpha}")
    worse, better = (baseline, candidate) if higher_is_better else (candidate, baseline)
    units = _units(worse, better, clusters)
    roots = _roots(units, alpha, seed)
    loss = _estimate(units, alpha, roots)
    if loss.low is None or loss.high is None:
        return NonInferiority("inconclusive", loss, None, None)
    verdict = "pass" if loss.high < margin else "worse" if loss.low > 0 else "inconclusive"
    p_worse = mcnemar(better, worse).p_worse if units.binary else _p_positive(units, roots)
    return NonInferiority(verdict, loss, p_worse, _detectable(units, alpha))


def smallest_detectable(
    n: int, alpha: float, *, discordant_share: float | None = None, sd: float | None = None, power: float = 0.8
) -> float:
    """The smallest true mean loss whose one-sided lower bound at ``alpha`` lies above 0 with probability ``power``.

    Give the share of discordant documents (0/1 values; it rises to the loss where the loss is larger), or the standard
    deviation of the differences. ``inf`` where ``n`` documents cannot tell even a loss of all from none.
    """
    from scipy import optimize, stats

    share, one_given = discordant_share or 0.0, (discordant_share is None) != (sd is None)
    if not (n >= 2 and 0 < alpha < 0.5 <= power < 1 and one_given and 0 <= share <= 1 and (sd or 0.0) >= 0):
        raise UsageError(
            "a smallest detectable loss needs n >= 2, alpha in (0, 0.5), power in [0.5, 1), and either the share of "
            "discordant documents or the standard deviation of the differences"
        )
    if sd is not None:
        return float(stats.t.isf(alpha, n - 1) + stats.t.ppf(power, n - 1)) * sd / math.sqrt(n)
    z_alpha, z_power = float(stats.norm.isf(alpha)), float(stats.norm.ppf(power))

    def spare(loss: float) -> float:
        """By how many documents the loss exceeds what the corrected score test needs."""
        discordant = max(share, loss)
        spread = z_alpha * math.sqrt(n * discordant) + z_power * math.sqrt(n * (discordant - loss**2))
        return n * loss - 1 - spread

    return float(optimize.brentq(spare, 0.0, 1.0)) if spare(1.0) > 0 else math.inf


def _roots(units: _Units, tail: float, seed: int) -> Array:
    """Studentised means of resamples; none where the interval does not come from them."""
    import numpy as np

    if units.n < FEW_UNITS or units.counted():
        return np.empty(0)
    return bootstrap_roots(units.residuals, units.weights, tail, seed)


def _estimate(units: _Units, tail: float, roots: Array) -> Estimate:
    """The mean with the interval that serves these units; each side errs with ``tail``."""
    import numpy as np
    from scipy import stats

    value = units.mean * units.span
    if units.n < 2 or units.span == 0:
        return Estimate(value, None, None, units.n)
    if units.counted():
        low, high = (bound * units.reach for bound in score_interval(*units.masses, units.n, tail))
    else:
        below = above = float(stats.t.isf(tail, units.n - 1))
        if len(roots):
            below = max(below, float(np.quantile(roots, 1 - tail, method="higher")))
            above = max(above, -float(np.quantile(roots, tail, method="lower")))
        low, high = units.mean - below * units.error, units.mean + above * units.error
    found = [bound * units.span if math.isfinite(bound) else None for bound in (low, high)]
    return Estimate(value, found[0], found[1], units.n)


def _p_positive(units: _Units, roots: Array) -> float:
    """One-sided p-value of "the mean is not above 0", from the same construction as the interval."""
    from scipy import stats

    if units.counted():
        gained, lost = units.masses
        return float(stats.norm.sf((gained - lost - 1) / math.sqrt(gained + lost))) if gained + lost else 1.0
    root = units.mean / units.error
    p = float(stats.t.sf(root, units.n - 1))
    return max(p, (1 + int((roots >= root).sum())) / (1 + len(roots))) if len(roots) else p


def _detectable(units: _Units, alpha: float) -> float:
    if not units.counted():
        return units.span * smallest_detectable(units.n, alpha, sd=units.error * math.sqrt(units.n))
    share = min(1.0, sum(units.masses) / units.n)
    return units.span * units.reach * smallest_detectable(units.n, alpha, discordant_share=share)


def _units(candidate: Sequence[float], baseline: Sequence[float], clusters: Sequence[Hashable] | None) -> _Units:
    """Differences grouped by cluster; without clusters, or with one document in each, documents are the units."""
    import numpy as np

    new, old = _arrays(candidate, baseline)
    n = len(new)
    place: dict[Hashable, int] = {}
    labels = range(n) if clusters is None else clusters
    if len(labels) != n:
        raise UsageError(f"{len(labels)} cluster labels for {n} documents; give one label a document")
    index = np.array([place.setdefault(label, len(place)) for label in labels])
    binary = _is_binary(new, old)
    span = 1.0 if binary else float(max(new.max(), old.max()) - min(new.min(), old.min()))
    sums = np.bincount(index, weights=(new - old) / (span or 1.0))
    return _Units(sums, np.bincount(index).astype(float), span, binary and len(place) == n)


def _arrays(candidate: Sequence[float], baseline: Sequence[float]) -> tuple[Array, Array]:
    import numpy as np

    new, old = np.asarray(candidate, dtype=float), np.asarray(baseline, dtype=float)
    if new.ndim != 1 or new.shape != old.shape:
        raise UsageError(
            f"values must pair document by document: {new.size} of the candidate, {old.size} of the baseline"
        )
    if not len(new):
        raise UsageError("no document was answered by both sides; nothing can be compared")
    if not (np.isfinite(new).all() and np.isfinite(old).all()):
        raise UsageError("a document has no finite value; leave it out on both sides or mend the metric")
    return new, old


def _is_binary(new: Array, old: Array) -> bool:
    return bool((((new == 0) | (new == 1)) & ((old == 0) | (old == 1))).all())
