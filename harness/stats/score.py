"""The score interval of a paired difference of proportions, which holds for few pairs and few discordant ones."""

from __future__ import annotations

import math


def score_interval(gained: float, lost: float, n: int, tail: float, correction: float = 1.0) -> tuple[float, float]:
    """Tango's score interval of (gained - lost) / n among ``n`` pairs, corrected for continuity by one pair.

    A difference d lies inside when |gained - lost - n d| - correction <= z sqrt(n (2 q + d (1 - d))). There q is the
    most likely probability of a loss given d, the larger root of

        2 n q^2 - (gained + lost - (2 n - gained + lost) d) q - lost d (1 - d) = 0.

    Each side errs with ``tail``. Source: Tango, Statistics in Medicine 17, 1998; there the correction is 0.
    """
    upper = _score_upper(gained, lost, n, tail, correction)
    return -_score_upper(lost, gained, n, tail, correction), upper


def _score_upper(gained: float, lost: float, n: int, tail: float, correction: float) -> float:
    from scipy import optimize, stats

    z = float(stats.norm.isf(tail))

    def excess(d: float) -> float:
        b = gained + lost - (2 * n - gained + lost) * d
        q = (b + math.sqrt(max(b * b + 8 * n * lost * d * (1 - d), 0.0))) / (4 * n)
        return gained - lost - n * d + correction + z * math.sqrt(max(n * (2 * q + d * (1 - d)), 0.0))

    if excess(1.0) >= 0:
        return 1.0
    # A hair above the estimate: without discordant pairs and correction the estimate itself solves the equation.
    return float(optimize.brentq(excess, (gained - lost) / n + 1e-12, 1.0))
