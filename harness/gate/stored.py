"""A gate against a stored run: only on the machine that made it, since absolute times mean nothing elsewhere."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.catalog.spec import parse_stack
from harness.errors import UsageError
from harness.gate.finding import NOT_JUDGED, Finding, Report
from harness.gate.judge import CLOCKS, Bar, Judged, clock_finding, quality_finding, without_figures
from harness.gate.policy import GateTrial, Policy
from harness.gate.run import Keep, judge_each, machine_noise, noisy_comparisons, open_report
from harness.measure.pairs import CANDIDATE
from harness.records.store import read_results
from harness.run.lockstep import Place, StationProcess, Tell, fleet
from harness.stats.paired import Bounds
from harness.stats.sequential import decide

if TYPE_CHECKING:
    import polars as pl

VISITS = 3


def run_against_stored(
    policy: Policy, place: Place, reference: Path, force: bool, log: Path, tell: Tell, keep: Keep = lambda *_: None
) -> Report:
    """Judge every trial against records. All must be there, and from this machine unless ``force``."""
    tables = read_results(reference)
    stored = {trial.name: _find(trial, policy, reference, tables) for trial in policy.trial}
    started = time.perf_counter()
    with fleet(log, policy.trial_limit_s) as ships:
        noise = machine_noise(place, ships, tell)
        report = open_report(policy, ships.at(place).hello, noise)
        others = {row["machine"] for row in stored.values() if row["kind"] == "cost"} - {report.machine}
        if others and not force:
            raise UsageError(
                f"the reference {reference} was measured on machine {', '.join(sorted(others))}, this is "
                f"{report.machine}: times of two machines cannot be compared; use a live base (--base) or --force"
            )
        if others:
            report.warnings.append(f"forced: the reference comes from another machine ({', '.join(sorted(others))})")
        bar = Bar(policy, noise, noisy_comparisons(policy), same_process=False)
        for trial in policy.trial:
            for name in (n for n in trial.wanted if n in CLOCKS):
                bar.design(trial, name)

        def judge(trial: GateTrial) -> Judged:
            station = ships.at(replace(place, model=trial.model or place.model))
            return Judged(_judge(station, trial, stored[trial.name], bar))

        report.findings = judge_each(policy, judge, tell, keep)
    report.seconds = time.perf_counter() - started
    return report


def _find(trial: GateTrial, policy: Policy, reference: Path, tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """The stored trial of a policy's trial, with its samples; a missing one is a :class:`UsageError`."""
    import polars as pl

    if trial.workload:
        raise UsageError(f"{trial.name}: workloads are judged against a live base only (--base)")
    kind, target = ("quality", trial.task) if trial.task else ("cost", trial.decode_name)
    model = trial.model or policy.model
    method = str(parse_stack(trial.against or trial.method))
    trials = tables["trials"].filter(
        (pl.col("kind") == kind)
        & (pl.col("method") == method)
        & (pl.col("model") == model)
        & (pl.col("target") == target)
        & pl.col("dtype").cast(pl.String).eq_missing(pl.lit(policy.dtype, pl.String))
        & (pl.col("status") == "ok")
    )
    if trials.is_empty():
        raise UsageError(
            f"the reference {reference} holds no finished trial {method} on {target} ({model}); "
            f"make it with `zoo run --method '{method}' --model {model} "
            f"{'--tasks' if trial.task else '--decode'} {target}{f' --dtype {policy.dtype}' if policy.dtype else ''}`"
        )
    row = trials.sort("started").row(-1, named=True)
    samples = tables["samples"].filter(pl.col("trial_id") == row["trial_id"]).to_dicts()
    return {**row, "samples": samples}


def _judge(station: StationProcess, trial: GateTrial, stored: Mapping[str, Any], bar: Bar) -> list[Finding]:
    if trial.task:
        given = json.loads(stored["options"])
        given.pop("log_samples", None)  # the samples are what is compared, whether or not they were kept then
        options = {**given, "seed": bar.policy.seed}
        answer = station.ask("quality", method=trial.method, task=trial.task, options=options)
        return [quality_finding(trial, name, answer, stored["samples"], bar) for name in trial.wanted]
    units = station.ask("open_decode", handle=CANDIDATE, method=trial.method, decode=trial.decode_spec())["units"]
    visits = [
        {**station.ask("visit", handle=CANDIDATE, unit=unit), "unit": unit}
        for _ in range(VISITS)
        for unit in range(units)
    ]
    found = [_clock(trial, name, visits, stored["samples"], bar) for name in trial.wanted if name in CLOCKS]
    note = "a stored run keeps no counts by visit; they are judged against a live base"
    left = [name for name in trial.wanted if name not in CLOCKS]
    return found + [replace(f, source="count") for f in without_figures(trial, left, NOT_JUDGED, note)]


def _clock(
    trial: GateTrial, name: str, visits: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, Any]], bar: Bar
) -> Finding:
    """Each prompt's least time now over its least time then; a t interval over prompts, as two runs share no blocks."""
    from harness.stats.intervals import mean_interval

    clock, design = CLOCKS[name], bar.design(trial, name)
    then = _least((s["unit"], s["value"]) for s in samples if s["side"] == CANDIDATE and s["name"] == clock)
    now = _least((v["unit"], v[clock]) for v in visits)
    ratios = [math.log(now[unit] / then[unit]) for unit in sorted(now.keys() & then.keys())]
    low = mean_interval(ratios, 1 - 2 * design.false_alarm)
    high = mean_interval(ratios, 1 - 2 * design.false_pass)
    return clock_finding(trial.name, name, decide(Bounds(low.value, low.low, high.high, len(ratios)), design), design)


def _least(pairs: Any) -> dict[int, float]:
    found: dict[int, float] = {}
    for unit, value in pairs:
        found[unit] = min(value, found.get(unit, math.inf))
    return found
