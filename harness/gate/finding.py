"""What a gate or a comparison found: one finding a metric, and the exit code that follows from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.records.metrics import metric
from harness.records.render import amount
from harness.stats.sequential import INCONCLUSIVE, PASS, REGRESSION

FAILED, NOT_JUDGED = "failed", "not judged"
OUTCOMES = (REGRESSION, FAILED, INCONCLUSIVE, PASS, NOT_JUDGED)
"""From worst to best; a report lists them in this order."""
CHANGE, DIFFERENCE, COUNT = "change", "difference", "count"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One metric of one trial.

    ``form`` says what ``value`` is: a relative ``change`` of a cost (0.05: 5 % slower or more), a ``difference`` of a
    quality metric (candidate minus baseline), or a ``count`` (both sides' figures in ``sides``).
    """

    trial: str
    metric: str
    outcome: str
    form: str = CHANGE
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    margin: float | None = None
    floor: float | None = None
    sides: tuple[float, float] | None = None
    source: str = "clock"
    note: str = ""

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        return f"{self.metric}: {_figures(self)}" + (f"; {self.note}" if self.note else "")


def _figures(found: Finding) -> str:
    if found.value is None:
        return found.outcome
    if found.form == COUNT and found.sides is not None:
        unit = metric(found.metric).unit
        one, other = (amount(v, unit) for v in found.sides)
        return f"{one} against {other}"
    unit = "" if found.form == DIFFERENCE else "%"
    scale = 1 if found.form == DIFFERENCE else 100
    interval = f" [{_number(found.low, scale)}, {_number(found.high, scale)}]{unit}"
    words = f"{scale * found.value:+.3g}{unit}{interval if (found.low, found.high) != (None, None) else ''}"
    return f"{words} {_meaning(found)}"


def _number(value: float | None, scale: float) -> str:
    return "?" if value is None else f"{scale * value:+.3g}"


def _meaning(found: Finding) -> str:
    name = {"speedup_cpu": "CPU time", "peak_memory_bytes": "memory"}.get(found.metric, "time")
    name = "energy" if found.metric.startswith("energy") else name
    return "against the baseline" if found.form == DIFFERENCE else f"{name} against the baseline"


@dataclass
class Report:
    """All findings of one gate, with what is needed to believe them and to run it again."""

    findings: list[Finding] = field(default_factory=list)
    candidate: str = ""
    baseline: str = ""
    machine: str = ""
    machine_label: str = ""
    floors: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    reproduce: str = ""

    @property
    def outcome(self) -> str:
        """The worst outcome among those that were judged."""
        judged = {f.outcome for f in self.findings} - {NOT_JUDGED}
        return next((o for o in OUTCOMES if o in judged), FAILED)

    def exit_code(self, strict: bool) -> int:
        """0 pass, 1 regression, 3 inconclusive where ``strict``, 4 where a trial or everything failed."""
        return {PASS: 0, REGRESSION: 1, INCONCLUSIVE: 3 if strict else 0}.get(self.outcome, 4)


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """The worst first; within an outcome as measured."""
    return sorted(findings, key=lambda f: OUTCOMES.index(f.outcome))
