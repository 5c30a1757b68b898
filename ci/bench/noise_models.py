"""Simulated noise of timed visits: skew, drift, autocorrelation and bursts, and paired blocks cut out of it.

A visit's log time is the sum of the parts below, each of which goes on in time from visit to visit. Nothing is drawn
before it is asked for, so comparisons that are decided early cost little.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SKEW_SD = 0.02
"""Every visit: a gamma law of shape 2 (skewness 1.4), independent from visit to visit."""
DRIFT_TOTAL, WALK_TOTAL = 0.10, 0.05
"""Drift: a straight line that changes by up to +-10 % over the budget, and a random walk that ends with sd 5 %."""
AUTO_SD, AUTO_PHI = 0.03, 0.9
"""Autocorrelation: a stationary first-order autoregression."""
BURST_SHARE, BURST_VISITS, BURST_SLOW = 0.10, 8.0, (0.10, 1.00)
"""Bursts: a tenth of the visits, in runs of eight on average, is slower by 10 to 100 %, drawn for each visit."""
BLOCK_VISITS = 4


@dataclass(frozen=True)
class Shape:
    """Which parts the noise of a cell has beside skew."""

    name: str
    drift: bool = False
    autocorrelation: bool = False
    bursts: bool = False


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("skew only"),
        Shape("drift", drift=True),
        Shape("autocorrelation", autocorrelation=True),
        Shape("bursts", bursts=True),
        Shape("all", drift=True, autocorrelation=True, bursts=True),
    )
}


class Stream:
    """The noise of ``count`` comparisons, each a machine of its own that is measured for ``horizon`` visits at most.

    ``run_sd`` is the between-run noise: a factor on all visits of a job, whichever side they belong to.
    """

    def __init__(self, shape: Shape, count: int, horizon: int, run_sd: float, rng: np.random.Generator) -> None:
        self.shape, self.horizon, self.rng = shape, horizon, rng
        self.level_N = run_sd * rng.standard_normal(count)
        self.slope_N = rng.uniform(-1, 1, count) * np.log1p(DRIFT_TOTAL) / horizon
        self.auto_N = AUTO_SD * rng.standard_normal(count)
        self.burst_N = rng.random(count) < BURST_SHARE

    def visits(self, num: int) -> Array:
        """Log times of the next ``num`` visits, (N, num)."""
        size = (len(self.level_N), num)
        log_NV = self.rng.standard_exponential(size)
        log_NV += self.rng.standard_exponential(size)
        log_NV *= SKEW_SD / np.sqrt(2)
        log_NV += self._drift(size) if self.shape.drift else self.level_N[:, None]
        if self.shape.autocorrelation:
            log_NV += self._autocorrelation(size)
        if self.shape.bursts:
            log_NV += self._bursts(size)
        return log_NV

    def keep(self, mask_N: NDArray[np.bool_]) -> None:
        """Go on with these comparisons alone."""
        for name in ("level_N", "slope_N", "auto_N", "burst_N"):
            setattr(self, name, getattr(self, name)[mask_N])

    def _drift(self, size: tuple[int, int]) -> Array:
        steps_NV = self.rng.standard_normal(size)
        steps_NV *= WALK_TOTAL / np.sqrt(self.horizon)
        steps_NV += self.slope_N[:, None]
        level_NV = np.cumsum(steps_NV, axis=1, out=steps_NV)
        level_NV += self.level_N[:, None]
        self.level_N = level_NV[:, -1].copy()
        return level_NV

    def _autocorrelation(self, size: tuple[int, int]) -> Array:
        from scipy.signal import lfilter

        fresh_NV = self.rng.standard_normal(size)
        fresh_NV *= AUTO_SD * np.sqrt(1 - AUTO_PHI**2)
        auto_NV, _ = lfilter([1.0], [1.0, -AUTO_PHI], fresh_NV, axis=1, zi=AUTO_PHI * self.auto_N[:, None])
        self.auto_N = auto_NV[:, -1].copy()
        return np.asarray(auto_NV)

    def _bursts(self, size: tuple[int, int]) -> Array:
        """A chain of two states: a uniform draw ends a burst, begins one, or (mostly) leaves things as they are."""
        ends = 1 / BURST_VISITS
        begins = ends * BURST_SHARE / (1 - BURST_SHARE)
        draw_NV = self.rng.random(size)
        state_NV = np.concatenate([self.burst_N[:, None], (draw_NV >= ends)], axis=1)
        event_NV = np.where(draw_NV < ends + begins, np.arange(1, size[1] + 1, dtype=np.int32), np.int32(0))
        last_NV = np.maximum.accumulate(event_NV, axis=1)
        on_NV = np.take_along_axis(state_NV, last_NV, axis=1)
        self.burst_N = on_NV[:, -1].copy()
        slow_NV = np.zeros(size)
        slow_NV[on_NV] = np.log1p(self.rng.uniform(*BURST_SLOW, int(on_NV.sum())))
        return slow_NV


@dataclass
class Pairs:
    """Blocks of two sides on a stream, the order A B B A or B A A B by one coin for all comparisons of a gate.

    ``shift_N`` is the log of how much slower the candidate truly is. ``opening`` keeps the first ten visits of each
    side (candidate, baseline), for rules that look at plain samples.
    """

    stream: Stream
    gate_N: NDArray[np.intp]
    shift_N: Array
    opening: tuple[Array, Array] | None = field(default=None, repr=False)

    def more(self, num: int) -> Array:
        """Log ratios of the next ``num`` blocks, (N, num); a side's figure is the smaller of its two visits."""
        visits_NBV = self.stream.visits(num * BLOCK_VISITS).reshape(-1, num, BLOCK_VISITS)
        coin_GB = self.stream.rng.random((int(self.gate_N.max()) + 1, num)) < 0.5
        outer_NB = coin_GB[self.gate_N]
        if self.opening is None:
            self.opening = self._sides(visits_NBV[:, :5], outer_NB[:, :5])
        outside_NB = np.minimum(visits_NBV[..., 0], visits_NBV[..., 3])
        inside_NB = np.minimum(visits_NBV[..., 1], visits_NBV[..., 2])
        ratio_NB = np.where(outer_NB, outside_NB - inside_NB, inside_NB - outside_NB)
        ratio_NB += self.shift_N[:, None]
        return ratio_NB

    def keep(self, mask_N: NDArray[np.bool_]) -> None:
        """Go on with these comparisons alone."""
        self.stream.keep(mask_N)
        self.gate_N, self.shift_N = self.gate_N[mask_N], self.shift_N[mask_N]

    def _sides(self, visits_NBV: Array, outer_NB: NDArray[np.bool_]) -> tuple[Array, Array]:
        outside, inside = visits_NBV[..., [0, 3]], visits_NBV[..., [1, 2]]
        chosen = outer_NB[..., None]
        count = len(visits_NBV)
        candidate = np.where(chosen, outside, inside).reshape(count, -1) + self.shift_N[:, None]
        return candidate, np.where(chosen, inside, outside).reshape(count, -1)
