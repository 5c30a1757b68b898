"""A verdict on paired blocks in several looks: a clear case stops early, an unclear one buys more blocks.

The chance of a wrong verdict is spent over the looks in proportion to the blocks that each adds (a spending function
linear in information), and the parts are added up. The sum bounds the chance of a wrong verdict at any look whatever
the dependence between looks is; a design for independent normal increments would be sharper and promise more than
noise with bursts and drift can keep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.errors import UsageError
from harness.stats.paired import MAX_BLOCKS, Bounds, signed_rank_bounds

PASS, REGRESSION, INCONCLUSIVE = "pass", "regression", "inconclusive"
FIRST_LOOK, GROWTH = 12, 1.4


@dataclass(frozen=True)
class Design:
    """What a verdict is asked for. ``margin`` and ``floor`` are relative slow-downs (0.02 is 2 %).

    ``false_alarm`` bounds the chance that equal sides are called a regression, ``false_pass`` the chance that a
    slow-down of the margin or more passes; both hold for this one comparison over all its looks.
    """

    margin: float
    floor: float
    false_alarm: float
    false_pass: float

    def __post_init__(self) -> None:
        if not (0 < self.false_alarm < 0.5 and 0 < self.false_pass < 0.5):
            raise UsageError(f"error rates lie between 0 and 0.5, not {self.false_alarm} and {self.false_pass}")
        if not 0 <= self.floor < self.margin:
            raise UsageError(
                f"a margin of {self.margin:.2%} lies below this machine's noise floor of {self.floor:.2%}; "
                "give a larger margin or a quieter machine"
            )


@dataclass(frozen=True)
class Verdict:
    """The outcome with the bounds it rests on; ``bounds`` are log ratios of the candidate's time to the baseline's."""

    outcome: str
    bounds: Bounds
    looks: int = 1
    note: str = ""

    @property
    def ratio(self) -> float:
        """The candidate's time as a multiple of the baseline's."""
        return math.exp(self.bounds.estimate)

    @property
    def low(self) -> float | None:
        """Lower bound of :attr:`ratio`."""
        return None if self.bounds.low is None else math.exp(self.bounds.low)

    @property
    def high(self) -> float | None:
        """Upper bound of :attr:`ratio`."""
        return None if self.bounds.high is None else math.exp(self.bounds.high)


def look_sizes(planned: int) -> list[int]:
    """Numbers of blocks at which a verdict is sought: growing by two fifths, the last is ``planned``."""
    planned = max(1, min(planned, MAX_BLOCKS))
    sizes, size = [], FIRST_LOOK
    while size < planned:
        sizes.append(size)
        size = math.ceil(size * GROWTH)
    return [*sizes, planned]


def judge(log_ratios: Sequence[float], design: Design, share: float) -> Verdict:
    """The verdict of one look that may spend ``share`` of the error rates."""
    return decide(signed_rank_bounds(log_ratios, design.false_alarm * share, design.false_pass * share), design)


def run_looks(
    more: Callable[[int], Mapping[str, Sequence[float]]], planned: int, designs: Mapping[str, Design]
) -> dict[str, Verdict]:
    """Look until every metric's case is clear. ``more(n)`` measures as needed and returns the log ratios of the first
    ``n`` blocks for each metric; where it returns fewer (the budget is spent), this is the last look.

    A metric that is decided stays decided. The last look spends what is left of the error rates.
    """
    verdicts: dict[str, Verdict] = {}
    planned, spent = min(planned, MAX_BLOCKS), 0.0
    for look, size in enumerate(look_sizes(planned), start=1):
        series = more(size)
        last = size >= planned or min(map(len, series.values())) < size
        share = 1 - spent if last else size / planned - spent
        for name, design in designs.items():
            if name not in verdicts or verdicts[name].outcome == INCONCLUSIVE:
                verdicts[name] = replace(judge(series[name], design, share), looks=look)
        if last or all(v.outcome != INCONCLUSIVE for v in verdicts.values()):
            break
        spent += share
    return verdicts


def decide(bounds: Bounds, design: Design) -> Verdict:
    """The rule: pass where the upper bound lies below the margin, else regression where the lower bound lies above the
    floor, else inconclusive. A slow-down that is certain, but certainly less than the margin, passes and is named."""
    certain = bounds.low is not None and bounds.low > math.log1p(design.floor)
    if bounds.high is not None and bounds.high < math.log1p(design.margin):
        faster = bounds.high < -math.log1p(design.floor)
        return Verdict(PASS, bounds, note="faster" if faster else "slower, within the margin" if certain else "")
    return Verdict(REGRESSION if certain else INCONCLUSIVE, bounds)
