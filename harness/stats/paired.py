"""Bounds on the log ratio of paired blocks that hold whatever the machine's noise looks like.

Which side goes first in a block is drawn by a coin. If the two sides are equally fast, exchanging their labels is then
as likely as not, so the block's log ratio is symmetric about zero under *any* noise: skew, drift, bursts,
autocorrelation. Wilcoxon's signed-rank statistic has a known law under symmetry alone, and inverting it gives bounds
that are exact for any number of blocks and hardly move when some blocks are hit by a burst. Student's t, the sign-flip
test and the bootstrap were tried on the same simulated blocks (``ci/gate_error_rates.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

MAX_BLOCKS = 512
"""More blocks than this are not asked for: longer visits serve better, and the exact law stays quick to compute."""


@dataclass(frozen=True)
class Bounds:
    """An estimate with one-sided bounds, each None where so few blocks cannot carry one at its level."""

    estimate: float
    low: float | None
    high: float | None
    n: int


@lru_cache(maxsize=1024)
def _signed_rank_cdf(n: int) -> np.ndarray[Any, Any]:
    """P(T <= t) for the signed-rank statistic T of ``n`` blocks under symmetry, t = 0 .. n (n + 1) / 2."""
    import numpy as np

    law = np.zeros(n * (n + 1) // 2 + 1)
    law[0] = 1.0
    for rank in range(1, n + 1):
        law[rank:] += law[:-rank].copy()  # a rank carries a plus or a minus with probability 1/2 each
        law *= 0.5
    return np.cumsum(law)


@lru_cache(maxsize=4096)
def critical_rank(n: int, alpha: float) -> int:
    """How many of the smallest Walsh averages lie outside a one-sided bound at level ``alpha``; 0: no bound.

    The largest k with P(T <= k - 1) <= alpha.
    """
    import numpy as np

    return int(np.searchsorted(_signed_rank_cdf(n), alpha, side="right"))


def signed_rank_bounds(log_ratios: Sequence[float], alpha_low: float, alpha_high: float) -> Bounds:
    """Hodges-Lehmann estimate of a shift, with exact one-sided bounds at levels ``alpha_low`` and ``alpha_high``.

    The bounds are order statistics of the Walsh averages (x_i + x_j) / 2, i <= j; ties make them wider, never narrower.
    Raises :class:`UsageError` for no value, for more than :data:`MAX_BLOCKS`, and for values that are not finite.
    """
    import numpy as np

    values = np.asarray(log_ratios, dtype=float)
    n = len(values)
    if not 1 <= n <= MAX_BLOCKS:
        raise UsageError(f"bounds need 1 to {MAX_BLOCKS} paired blocks, not {n}")
    if not np.isfinite(values).all():
        raise UsageError("a paired block has no finite log ratio: a time was zero, negative or missing")
    rows, columns = np.triu_indices(n)
    walsh = np.sort((values[rows] + values[columns]) / 2)
    low, high = critical_rank(n, alpha_low), critical_rank(n, alpha_high)
    return Bounds(
        estimate=float(np.median(walsh)),
        low=float(walsh[low - 1]) if low else None,
        high=float(walsh[-high]) if high else None,
        n=n,
    )
