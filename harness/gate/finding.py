"""What a gate or a comparison found: one finding a metric, and the exit code that follows from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
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
        """The finding in plain words, for a reader who sees nothing but this line."""
        return f"{self.metric}: {_figures(self)}{_meaning(self)}" + (f"; {self.note}" if self.note else "")


def _figures(found: Finding) -> str:
    """What was measured: ``5.2% more time than the baseline [+1.1%, +9.4%]``."""
    if found.value is None:
        return found.outcome
    if found.form == COUNT and found.sides is not None:
        unit = metric(found.metric).unit
        one, other = (amount(v, unit) for v in found.sides)
        return f"{one} against the baseline's {other}" if found.value else f"{one}, as the baseline"
    bounds = (found.low, found.high)
    interval = "" if bounds == (None, None) else " [{}, {}]".format(*(signed(b, found.form) for b in bounds))
    if found.form == DIFFERENCE:
        size, what = _size(found.value, found.form), "higher" if found.value > 0 else "lower"
        return (f"{size} {what} than" if found.value else "the same as") + f" the baseline{interval}"
    what = {"speedup_cpu": "CPU time", "speedup_ttft": "time to the first token"}.get(found.metric, "time")
    what = "energy a token" if found.metric.startswith("energy") else what
    size, more = _size(found.value, found.form), "more" if found.value > 0 else "less"
    return (f"{size} {more} {what} than" if found.value else f"the same {what} as") + f" the baseline{interval}"


def _meaning(found: Finding) -> str:
    """Why the outcome follows: where the figures lie against margin and floor."""
    if found.value is None or found.margin is None:
        return ""
    limit = _size(found.margin, CHANGE if found.form == COUNT else found.form)
    if found.form == COUNT:
        size = f"{_size(found.value, CHANGE)} " if isfinite(found.value) else ""
        allowed = f"at most {limit}" if found.margin else "nothing"
        worse = f", {size}worse, where {allowed} worse is allowed"
        return worse if found.value > 0 else f", {size}better" if found.value else ""
    if found.form == DIFFERENCE:
        ruled_out = f": a loss of {limit} is ruled out" if found.value else ""
        unsure = f": may be no loss, may be a loss of {limit}"
        return {PASS: ruled_out, REGRESSION: ": certainly a loss", INCONCLUSIVE: unsure}.get(found.outcome, "")
    above, below = f"the noise floor of {_size(found.floor or 0, CHANGE)}", f"the margin of {limit}"
    if (found.low, found.high) == (None, None) and found.outcome != INCONCLUSIVE:
        return {PASS: f": less than {below}", REGRESSION: f": more than {below}"}.get(found.outcome, "")
    alarmed = found.low is not None and found.low > (found.floor or 0)
    unsure = "" if alarmed else f": may be noise (floor {_size(found.floor or 0, CHANGE)}), may be {below} or more"
    words = {PASS: f": even the upper bound is below {below}", REGRESSION: f": even the lower bound is above {above}"}
    return {**words, INCONCLUSIVE: unsure}.get(found.outcome, "")


def signed(value: float | None, form: str) -> str:
    """With its sign, a change in percent; a bound that so few blocks or documents cannot carry is unknown."""
    if value is None:
        return "unknown"
    return f"{value:+.3g}" if form == DIFFERENCE else f"{100 * value:+.3g}%"


def _size(value: float, form: str) -> str:
    return signed(abs(value), form).lstrip("+")


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
