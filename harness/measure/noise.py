"""The noise floor of a machine: by how much two equal sides seem to differ on it, kept under the machine's key."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.measure.kept import write_kept
from harness.subjects.catalog import cache_dir

ONE, TWO = "one process", "two processes"
"""Where the sides of a pair run. Two processes differ in where their memory lies, which blocks of one pair share."""
COVERAGE, CONFIDENCE = 0.95, 0.95


@dataclass(frozen=True)
class Floor:
    """A metric's floor: the relative difference that an A/A comparison exceeds one time in twenty at most.

    ``low`` and ``high`` are the most extreme A/A ratios minus one that were seen, ``n`` says in how many comparisons.
    """

    value: float
    low: float
    high: float
    n: int
    source: str = "clock"


@dataclass(frozen=True)
class NoiseFloor:
    """The floors of one machine by layout (:data:`ONE`, :data:`TWO`) and clock (wall, cpu, memory, energy)."""

    machine: str
    label: str
    model: str
    measured: str
    busy: str | None
    floors: dict[str, dict[str, Floor]] = field(default_factory=dict)

    def of(self, layout: str, clock: str) -> Floor | None:
        """The floor that a verdict is held against; None where it was not measured."""
        return self.floors.get(layout, {}).get(clock)


def floor_of(log_ratios: Sequence[float], source: str = "clock") -> Floor:
    """The two-sided tolerance limit of A/A log ratios about zero, for normal noise: coverage and confidence of 95 %.

    Never below the largest that was seen, so one wild comparison raises the floor instead of being averaged away.
    """
    from scipy import stats

    n = len(log_ratios)
    squares = math.fsum(x * x for x in log_ratios)
    sd = math.sqrt(squares / float(stats.chi2.ppf(1 - CONFIDENCE, n)))
    limit = max(float(stats.norm.ppf(0.5 + COVERAGE / 2)) * sd, *(abs(x) for x in log_ratios))
    return Floor(math.expm1(limit), math.expm1(min(log_ratios)), math.expm1(max(log_ratios)), n, source)


def _path(machine: str) -> Path:
    return cache_dir() / "noise" / f"{machine}.json"


def read_noise(machine: str) -> NoiseFloor | None:
    """What was measured on a machine; None where nothing was, or by another version."""
    try:
        found = json.loads(_path(machine).read_text())
        floors = {
            layout: {clock: Floor(**floor) for clock, floor in clocks.items()}
            for layout, clocks in found.pop("floors").items()
        }
        return NoiseFloor(**found, floors=floors)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_noise(noise: NoiseFloor) -> None:
    """Keep a floor under its machine's key."""
    write_kept(_path(noise.machine), asdict(noise))
