"""The rows of a comparison: figures of both sides, ratio or difference with its interval, and one plain sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from harness.gate.judge import mean_count
from harness.gate.policy import MEMORY
from harness.measure.noise import NoiseFloor
from harness.measure.pairs import BASELINE, CANDIDATE, PairRun
from harness.records.metrics import metric
from harness.records.render import amount
from harness.stats.family import holm
from harness.stats.intervals import Estimate
from harness.stats.quality import non_inferiority, paired_difference

Documents = tuple[str, str, list[float], list[float]]
"""A task, a metric of it, and both sides' values on the documents that both answered."""
LEVEL = 0.95
SPANS = {"total_s": "whole requests", "ttft_s": "time to first token", "decode_s": "decoding", "cpu_s": "CPU time"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One metric on one target: both sides' figures, the ratio or difference with its interval, and the sentence."""

    target: str
    metric: str
    verdict: str
    sentence: str
    first: float | None = None
    second: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    floor: float | None = None
    source: str = "clock"


@dataclass
class Comparison:
    """All lines of one comparison, and the machine they were measured on."""

    first: str
    second: str
    machine: str
    machine_label: str
    layout: str
    noise: NoiseFloor | None
    lines: list[Line] = field(default_factory=list)


def clock_line(target: str, name: str, run: PairRun, clock: str, about: Comparison) -> Line:
    """A speed-up with its 95 % interval over units, and whether it stands out of the machine's noise."""
    ratio = run.speedup(lambda block: block.result[clock])
    seconds = [fmean(run.best(side, lambda block: block.result[clock])) for side in (CANDIDATE, BASELINE)]
    floor = about.noise.of(about.layout, "cpu" if clock == "cpu_s" else "wall") if about.noise else None
    limit = 1 + (floor.value if floor else 0.0)
    verdict, words = "no difference", f"no difference from {about.second} that this run can tell"
    if ratio.low is not None and ratio.low > limit:
        verdict, words = "better", f"{ratio.value:.3g} times as fast as {about.second}"
    elif ratio.high is not None and ratio.high < 1 / limit:
        verdict, words = "worse", f"{ratio.value:.3g} times as fast as {about.second}, so slower"
    sentence = f"{about.first} on {target}, {SPANS[clock]}: {words} {_interval(ratio)}"
    return Line(
        target=target,
        metric=name,
        verdict=verdict,
        sentence=sentence,
        first=1e3 * seconds[0],
        second=1e3 * seconds[1],
        value=ratio.value,
        low=ratio.low,
        high=ratio.high,
        n=ratio.n,
        floor=floor.value if floor else None,
    )


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "(one unit: no interval)"
    return f"[{estimate.low:.3g}, {estimate.high:.3g}]"


def count_line(target: str, name: str, run: PairRun, about: Comparison) -> Line | None:
    """Means over units of a count; None where a side does not report it."""
    one, other = (mean_count(run.of(side), name) for side in (CANDIDATE, BASELINE))
    return None if one is None or other is None else plain_line(target, name, one, other, about, "count")


def plain_line(target: str, name: str, first: float, second: float, about: Comparison, source: str) -> Line:
    """Figures without an interval: counts and peak memory, or modelled energy."""
    unit, direction = metric(name).unit, metric(name).direction
    better = (first < second) if direction == "lower" else (first > second)
    floor = about.noise.of(about.layout, "memory") if about.noise and name == MEMORY else None
    same = math.isclose(first, second, rel_tol=floor.value if floor else 1e-9)
    verdict = "no difference" if same or direction == "none" else "better" if better else "worse"
    words = f"{amount(first, unit)} against {amount(second, unit)}"
    note = ", modelled, never a verdict" if source == "model" else ""
    return Line(
        target=target,
        metric=name,
        verdict="not judged" if source == "model" else verdict,
        sentence=f"{about.first} on {target}, {name}: {words} of {about.second}{note}",
        first=first,
        second=second,
        value=first / second if second else None,
        floor=floor.value if floor else None,
        source=source,
    )


def quality_lines(series: Sequence[Documents], first: str, second: str) -> list[Line]:
    """Paired differences; what counts as worse or better is held at 5 % over all of them together (Holm)."""
    worse, better, alpha = [], [], (1 - LEVEL) / 2
    for _, name, one, other in series:
        higher = metric(name).direction != "lower"
        span = max(1e-9, max(*one, *other) - min(*one, *other))
        judged = [
            non_inferiority(*pair, span, alpha / len(series), higher_is_better=higher).p_worse
            for pair in ((one, other), (other, one))
        ]
        worse.append(1.0 if judged[0] is None else judged[0])
        better.append(1.0 if judged[1] is None else judged[1])
    is_worse, is_better = holm(worse, alpha).rejected, holm(better, alpha).rejected
    lines = []
    for number, (task, name, one, other) in enumerate(series):
        difference = paired_difference(one, other, LEVEL)
        verdict = "worse" if is_worse[number] else "better" if is_better[number] else "no difference"
        words = "no difference found" if verdict == "no difference" else verdict
        shown = f"{difference.value:+.3g} {_interval(difference)}"
        lines.append(
            Line(
                target=task,
                metric=name,
                verdict=verdict,
                sentence=f"{first} on {task}, {name}: {words} against {second}, {shown} on {len(one)} documents",
                first=fmean(one),
                second=fmean(other),
                value=difference.value,
                low=difference.low,
                high=difference.high,
                n=len(one),
                source="lm-eval",
            )
        )
    return lines
