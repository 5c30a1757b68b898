"""Judges one trial of a policy: counts first, since they have no noise, then clocks and memory, or quality."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from harness.errors import EnvironmentFailed, Refused, UsageError, ZooError, unknown_name
from harness.gate.finding import COUNT, DIFFERENCE, NOT_JUDGED, Finding
from harness.gate.policy import COUNTS, ENERGY, MEMORY, WORKLOAD_CLOCKS, GateTrial, Policy
from harness.measure.decode import SPEEDUPS
from harness.measure.noise import ONE, TWO, Floor, NoiseFloor
from harness.measure.pairs import BASELINE, CANDIDATE, Block, PairRun
from harness.records.metrics import metric
from harness.run.lockstep import BlockSeries, StationProcess, log_ratio, pair_visits
from harness.stats.quality import non_inferiority
from harness.stats.sequential import INCONCLUSIVE, PASS, REGRESSION, Design, Verdict, run_looks

CLOCKS = {**SPEEDUPS, **WORKLOAD_CLOCKS}
MEMORY_VISITS = 3
ENERGY_WINDOWS = 3


@dataclass(frozen=True)
class Bar:
    """What verdicts are held against: the policy, the floors, and how many noisy comparisons share the error rate."""

    policy: Policy
    noise: NoiseFloor
    comparisons: int
    same_process: bool

    def floor(self, name: str) -> Floor:
        """The floor of a metric in the layout in which its sides run."""
        found = self.known_floor(name)
        if found is None:
            raise UsageError(f"no noise floor for {name} on this machine; measure it with `zoo doctor --noise`")
        return found

    def known_floor(self, name: str) -> Floor | None:
        """The same; None where it was not measured."""
        clock = {MEMORY: "memory", ENERGY: "energy (counter)", "speedup_cpu": "cpu"}.get(name, "wall")
        return self.noise.of(ONE if self.same_process else TWO, clock)

    def design(self, trial: GateTrial, name: str) -> Design:
        """Margin, floor and error rates of one comparison; the alarm rate of the gate is shared out evenly."""
        margin, floor = self.policy.margin_of(trial, name), self.floor(name).value
        if floor >= margin:
            raise UsageError(
                f"{trial.name}: a margin of {margin:.2%} for {name} lies below this machine's noise floor of "
                f"{floor:.2%}; give a larger margin, or measure the floor again on a quiet machine (zoo doctor --noise)"
            )
        return Design(margin, floor, self.policy.false_alarm / self.comparisons, self.policy.false_pass)


@dataclass
class Judged:
    """The findings of a trial, with the raw visits behind them and the seeds that drew their order."""

    findings: list[Finding]
    blocks: Sequence[Sequence[Block]] = ()
    coins: Sequence[int] = ()


def judge_trial(candidate: StationProcess, baseline: StationProcess, trial: GateTrial, bar: Bar) -> Judged:
    """Measure and judge one trial. What the candidate alone cannot do any more is a regression, not a failure."""
    if trial.task:
        return Judged(_quality(candidate, baseline, trial, bar))
    try:
        units = _open(candidate, CANDIDATE, trial, trial.method)
    except ZooError as error:
        return Judged(_broken(lambda: _open(baseline, BASELINE, trial, trial.against or trial.method), trial, error))
    if trial.workload and not trial.against and candidate is baseline:
        candidate.ask("open_workload", handle=BASELINE, method=trial.method, workload=trial.workload, reference=True)
    else:
        _of_baseline(lambda: _open(baseline, BASELINE, trial, trial.against or trial.method))
    coin = secrets.randbits(32)  # one coin for all gates would be no coin
    series = BlockSeries(pair_visits(candidate, baseline), units, trial.budget_s or bar.policy.budget_s, coin)
    findings = _clocks(series, trial, bar) if set(trial.wanted) & set(CLOCKS) else []
    series.upto(units)
    findings = [*_counts(series.blocks, trial, bar.policy), *findings]
    if MEMORY in trial.wanted:
        findings.append(_memory(candidate, baseline, trial, bar))
    if ENERGY in trial.wanted:
        findings.append(_energy(candidate, baseline, trial, bar))
    return Judged(findings, series.blocks, [series.seed])


def _open(station: StationProcess, handle: str, trial: GateTrial, method: str) -> int:
    if trial.workload:
        answer = station.ask("open_workload", handle=handle, method=method, workload=trial.workload)
    else:
        answer = station.ask("open_decode", handle=handle, method=method, decode=trial.decode_spec())
    return int(answer["units"])


def _broken(of_baseline: Callable[[], object], trial: GateTrial, error: ZooError) -> list[Finding]:
    """The candidate cannot run: a regression where the baseline can, else its error. A rival proves nothing of names
    and refusals, which are the candidate's own."""
    if trial.against and isinstance(error, UsageError | Refused):
        raise error
    try:
        of_baseline()
    except ZooError:
        raise error from None
    note = f"runs on the baseline's side, fails on the candidate's: {error}"
    return without_figures(trial, trial.wanted, REGRESSION, note)


def without_figures(trial: GateTrial, names: Iterable[str], outcome: str, note: str) -> list[Finding]:
    """Findings for which nothing was measured, and why."""
    return [Finding(trial=trial.name, metric=name, outcome=outcome, note=note) for name in names]


def _of_baseline(call: Callable[[], Any]) -> Any:
    """What the baseline's side answers, once the candidate's has: a name that only the baseline lacks is no typo."""
    try:
        return call()
    except ZooError as error:
        raise EnvironmentFailed(f"runs on the candidate's side, fails on the baseline's: {error}") from error


def _counts(blocks: Sequence[Sequence[Block]], trial: GateTrial, policy: Policy) -> list[Finding]:
    found, run = [], PairRun([visit for block in blocks for visit in block])
    for name in (n for n in trial.wanted if n in COUNTS):
        one, other = (mean_count(run.of(side), name) for side in (CANDIDATE, BASELINE))
        if one is None or other is None:
            continue  # a method without a cache of its own reports no bytes of it
        worse = (one - other) * (1 if metric(name).direction == "lower" else -1)
        change = worse / abs(other) if other else math.inf * worse if worse else 0.0
        margin = policy.margin_of(trial, name)
        outcome = REGRESSION if change > margin else PASS
        shown = Finding(trial=trial.name, metric=name, outcome=outcome, form=COUNT, value=change, source="count")
        found.append(replace(shown, n=len(blocks), margin=margin, sides=(one, other)))
    return found


def mean_count(visits: Sequence[Block], name: str) -> float | None:
    """A side's count, mean over units, as every visit of a unit counts the same; None where it is not reported."""
    of_unit = {visit.unit: visit.result.get(name) for visit in visits}
    return None if None in of_unit.values() else fmean(of_unit.values())


def _clocks(series: BlockSeries, trial: GateTrial, bar: Bar) -> list[Finding]:
    names = [name for name in trial.wanted if name in CLOCKS]
    designs = {name: bar.design(trial, name) for name in names}

    def more(n: int) -> Mapping[str, Sequence[float]]:
        blocks = series.upto(n)
        return {name: [log_ratio(block, CLOCKS[name]) for block in blocks] for name in names}

    verdicts = run_looks(more, series.plan(), designs)
    return [clock_finding(trial.name, name, verdicts[name], designs[name]) for name in names]


def clock_finding(trial: str, name: str, verdict: Verdict, design: Design) -> Finding:
    """A verdict on a clock as a finding; an inconclusive one says what it lacks."""
    lacking = "the budget is too small to tell" if verdict.outcome == INCONCLUSIVE else ""
    return Finding(
        trial=trial,
        metric=name,
        outcome=verdict.outcome,
        value=verdict.ratio - 1,
        low=None if verdict.low is None else verdict.low - 1,
        high=None if verdict.high is None else verdict.high - 1,
        n=verdict.bounds.n,
        margin=design.margin,
        floor=design.floor,
        note=verdict.note or lacking,
    )


def _memory(candidate: StationProcess, baseline: StationProcess, trial: GateTrial, bar: Bar) -> Finding:
    """Peak memory of one request, the least of three visits a side."""
    design = bar.design(trial, MEMORY)
    held = [
        min(station.ask("peak_memory", handle=side)[MEMORY] for _ in range(MEMORY_VISITS))
        for station, side in ((candidate, CANDIDATE), (baseline, BASELINE))
    ]
    change = held[0] / held[1] - 1
    return Finding(
        trial=trial.name,
        metric=MEMORY,
        form=COUNT,
        outcome=REGRESSION if change > design.margin else PASS,
        value=change,
        n=MEMORY_VISITS,
        margin=design.margin,
        floor=design.floor,
        sides=(held[0], held[1]),
        source="count",
    )


def _quality(candidate: StationProcess, baseline: StationProcess, trial: GateTrial, bar: Bar) -> list[Finding]:
    options = {
        "limit": trial.limit,
        "num_fewshot": trial.num_fewshot,
        "batch_size": trial.batch_size,
        "include_path": trial.include_path,
        "seed": bar.policy.seed,
    }

    def of_baseline() -> Any:
        return baseline.ask("quality", method=trial.against or trial.method, task=trial.task, options=options)

    try:
        answer = candidate.ask("quality", method=trial.method, task=trial.task, options=options)
    except ZooError as error:
        return _broken(of_baseline, trial, error)
    other = _of_baseline(of_baseline)
    return [quality_finding(trial, name, answer, other, bar) for name in trial.wanted]


def quality_finding(
    trial: GateTrial, name: str, candidate: list[dict[str, Any]], baseline: list[dict[str, Any]], bar: Bar
) -> Finding:
    """Judge a quality metric, paired by document, against its margin."""
    known = {row["name"] for row in candidate}
    if name not in known:
        raise unknown_name(f"metric of task {trial.task}", name, known)
    pairs = paired_documents(candidate, baseline, name)
    n = len(pairs[0])
    if not n:
        raise UsageError(f"the two sides of {trial.name} answered no document in common")
    margin = bar.policy.margin_of(trial, name)
    higher = metric(name).direction != "lower"
    judged = non_inferiority(*pairs, margin, bar.policy.false_alarm / bar.comparisons, higher_is_better=higher)
    same = pairs[0] == pairs[1]
    sign = -1 if higher else 1
    ends = [None if v is None else sign * v for v in (judged.loss.low, judged.loss.high)]
    return Finding(
        trial=trial.name,
        metric=name,
        form=DIFFERENCE,
        outcome=PASS if same else {"worse": REGRESSION}.get(judged.verdict, judged.verdict),
        value=sign * judged.loss.value,
        low=ends[1] if higher else ends[0],
        high=ends[0] if higher else ends[1],
        n=n,
        margin=margin,
        source="lm-eval",
        note=f"equal on all {n} documents" if same else _power(n, judged.detectable),
    )


def paired_documents(
    candidate: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]], name: str
) -> tuple[list[float], list[float]]:
    """Both sides' values of a metric on the documents that both answered, in one order."""
    one, other = ({row["unit"]: row["value"] for row in rows if row["name"] == name} for rows in (candidate, baseline))
    both = sorted(one.keys() & other.keys())
    return [one[d] for d in both], [other[d] for d in both]


def _power(n: int, detectable: float | None) -> str:
    return "" if detectable is None else f"{n} documents can tell a loss of {detectable:.3g}"


def _energy(candidate: StationProcess, baseline: StationProcess, trial: GateTrial, bar: Bar) -> Finding:
    """Energy a decoded token, the median ratio of three window pairs. A modelled figure is shown and never judged."""
    ratios, source, window_s = [], "none", bar.policy.energy_window_s
    for turn in range(ENERGY_WINDOWS):
        sides = [(candidate, CANDIDATE), (baseline, BASELINE)]
        values = {}
        for station, side in sides if turn % 2 == 0 else reversed(sides):
            for figure in station.ask("energy", handle=side, window_s=window_s):
                if figure["metric"] == ENERGY:
                    values[side], source = figure["value"], figure["source"]
        if len(values) == 2:
            ratios.append(values[CANDIDATE] / values[BASELINE] - 1)
    change = median(ratios) if ratios else None
    common: dict[str, Any] = {
        "trial": trial.name,
        "metric": ENERGY,
        "value": change,
        "n": len(ratios),
        "source": source,
    }
    if source != "counter" or change is None:
        note = f"energy from the source {source!r} never gates"
        return Finding(outcome=NOT_JUDGED, note=note, **common)
    if bar.known_floor(ENERGY) is None:
        note = "no noise floor of energy on this machine; measure it with `zoo doctor --noise --energy 30`"
        return Finding(outcome=NOT_JUDGED, note=note, **common)
    design = bar.design(trial, ENERGY)
    outcome = REGRESSION if change > design.margin else PASS
    return Finding(outcome=outcome, margin=design.margin, floor=design.floor, **common)
