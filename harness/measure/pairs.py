"""The pair engine: two sides take turns on the same units of work, and the figure is the ratio.

Order within a unit is A B B A or B A A B, as a coin says: a steady drift hits both sides alike, and what noise is left
favours neither. A side's figure for a unit is the smaller of its two visits: interruptions by other programs only ever
add time. One unit is a whole generation, update or call.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from harness.stats.intervals import Estimate, ratio_interval

Side = Callable[[int], AbstractContextManager[Callable[[], Any]]]
"""Given a unit's number, a context that yields the call to be timed; entering and leaving are not timed."""
Visit = Callable[[int], "Block"]
"""Runs a unit once and returns what was timed."""
CANDIDATE, BASELINE = "candidate", "baseline"
ORDER = (CANDIDATE, BASELINE, BASELINE, CANDIDATE)
SELF_ORDER = (CANDIDATE, BASELINE)
"""A side that is paired with itself needs half the visits."""
OTHER = {CANDIDATE: BASELINE, BASELINE: CANDIDATE}


@dataclass(frozen=True)
class Block:
    """One timed visit of one side: seconds on the wall and of this process's CPU, and what the side returned."""

    side: str
    unit: int
    wall_s: float
    cpu_s: float
    result: Any = None


@dataclass
class PairRun:
    """All blocks of one pair, in the order in which they ran."""

    blocks: list[Block] = field(default_factory=list)

    def best(self, side: str, value: Callable[[Block], float]) -> list[float]:
        """For each unit, the smallest value over the side's visits."""
        units = sorted({b.unit for b in self.blocks})
        return [min(value(b) for b in self.blocks if b.unit == u and b.side == side) for u in units]

    def speedup(self, value: Callable[[Block], float] = lambda b: b.wall_s) -> Estimate:
        """How many times faster the candidate is than the baseline, with its 95 % interval over units."""
        return ratio_interval(self.best(BASELINE, value), self.best(CANDIDATE, value))

    def of(self, side: str) -> list[Block]:
        """The side's blocks."""
        return [b for b in self.blocks if b.side == side]

    @property
    def cpu_share(self) -> float:
        """CPU seconds per wall second over all blocks; far below the thread count on a busy machine."""
        return sum(b.cpu_s for b in self.blocks) / max(1e-9, sum(b.wall_s for b in self.blocks))


def timed(side: Side, name: str, unit: int) -> Block:
    """Run one block with the garbage collector held off."""
    with side(unit) as call:
        gc.collect()
        gc.disable()
        try:
            cpu, wall = time.process_time(), time.perf_counter()
            result = call()
            return Block(name, unit, time.perf_counter() - wall, time.process_time() - cpu, result)
        finally:
            gc.enable()


def timed_sides(candidate: Side, baseline: Side) -> dict[str, Visit]:
    """The visits of two sides in this process."""
    return {
        CANDIDATE: lambda unit: timed(candidate, CANDIDATE, unit),
        BASELINE: lambda unit: timed(baseline, BASELINE, unit),
    }


def visit_block(visits: Mapping[str, Visit], unit: int, coin: random.Random, order: Sequence[str]) -> list[Block]:
    """All visits of one unit, in the given order or, as the coin says, with the sides exchanged."""
    names = order if coin.random() < 0.5 else [OTHER[name] for name in order]
    return [visits[name](unit) for name in names]


def run_pairs(
    visits: Mapping[str, Visit],
    units: Sequence[int],
    budget_s: float = float("inf"),
    at_least: int = 3,
    order: Sequence[str] = ORDER,
    seed: int = 0,
) -> PairRun:
    """Time both sides on each unit; stop early, on a whole unit, when the budget is spent."""
    run, coin = PairRun(), random.Random(seed)
    started = time.perf_counter()
    for done, unit in enumerate(units):
        if done >= at_least and time.perf_counter() - started > budget_s:
            break
        run.blocks += visit_block(visits, unit, coin, order)
    return run
