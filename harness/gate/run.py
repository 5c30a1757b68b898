"""Runs a gate: starts the processes of both sides, judges every trial, and loses nothing when one of them fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import EnvironmentFailed, UsageError, ZooError
from harness.gate.finding import CHANGE, FAILED, Finding, Report
from harness.gate.floors import measure_noise
from harness.gate.judge import CLOCKS, Bar, Judged, judge_trial, without_figures
from harness.gate.policy import COUNTS, ENERGY, MEMORY, GateTrial, Policy
from harness.measure.noise import NoiseFloor, read_noise
from harness.run.lockstep import Fleet, Place, Tell, fleet
from harness.stats.sequential import INCONCLUSIVE, REGRESSION

Keep = Callable[[GateTrial, Judged], None]
"""Takes each trial's result as soon as it is there."""


@dataclass(frozen=True)
class Sides:
    """How the two sides are started; without a ``baseline`` every trial says what it is against."""

    candidate: Place
    baseline: Place | None

    def of(self, trial: GateTrial) -> tuple[Place, Place]:
        """Both places of one trial."""
        candidate = replace(self.candidate, model=trial.model or self.candidate.model)
        if trial.against:
            return candidate, candidate
        if self.baseline is None:
            raise UsageError(f"{trial.name} names no `against`, and there is no base revision to compare with (--base)")
        return candidate, replace(self.baseline, model=candidate.model)


def machine_noise(place: Place, ships: Fleet, tell: Tell) -> NoiseFloor:
    """The floor of this machine, measured now (some minutes) where it never was."""
    known = read_noise(ships.at(place).hello["machine"])
    if known is not None:
        return known
    tell("no noise floor is known for this machine: measuring it first, as `zoo doctor --noise` does")
    return measure_noise(replace(place, model="tiny-random", dtype=None), ships.log, tell)


def noisy_comparisons(policy: Policy) -> int:
    """Among how many comparisons the gate's false-alarm rate is shared out."""
    return max(1, sum(name not in COUNTS for trial in policy.trial for name in trial.wanted))


def run_gate(policy: Policy, sides: Sides, log: Path, tell: Tell, keep: Keep = lambda *_: None) -> Report:
    """Judge every trial of a policy, both sides live."""
    started = time.perf_counter()
    with fleet(log, policy.trial_limit_s) as ships:
        noise = machine_noise(sides.candidate, ships, tell)
        report = open_report(policy, ships.at(sides.candidate).hello, noise)
        bars = {trial.name: _bar(policy, sides, trial, noise) for trial in policy.trial}
        report.findings = judge_each(policy, lambda t: _judge_twice(ships, sides, t, bars[t.name]), tell, keep)
    report.seconds = time.perf_counter() - started
    return report


def open_report(policy: Policy, hello: dict[str, Any], noise: NoiseFloor) -> Report:
    """A report without findings: who measures, under which policy, on which floor."""
    return Report(
        machine=hello["machine"],
        machine_label=hello["machine_label"],
        floors=asdict(noise)["floors"],
        policy=policy.model_dump(exclude_none=True),
        environment={name: hello[name] for name in ("versions", "git", "device", "dtype")},
        warnings=[f"the noise floor was measured on a {noise.busy}"] if noise.busy else [],
    )


def judge_each(policy: Policy, judge: Callable[[GateTrial], Judged], tell: Tell, keep: Keep) -> list[Finding]:
    """The findings of all trials. What goes wrong in one fails it alone; wrong names and margins end the gate."""
    findings: list[Finding] = []
    for trial in policy.trial:
        tell(trial.name)
        try:
            judged = judge(trial)
        except UsageError:
            raise
        except ZooError as error:
            judged = Judged(without_figures(trial, trial.wanted, FAILED, str(error)))
        findings += judged.findings
        keep(trial, judged)
    return findings


def _bar(policy: Policy, sides: Sides, trial: GateTrial, noise: NoiseFloor) -> Bar:
    """What a trial is held against; a margin below the floor is refused before anything is measured."""
    bar = Bar(policy, noise, noisy_comparisons(policy), same_process=len(set(sides.of(trial))) == 1)
    for name in trial.wanted:
        if name in CLOCKS or name == MEMORY or (name == ENERGY and bar.known_floor(ENERGY)):
            bar.design(trial, name)
    return bar


def _judge_twice(ships: Fleet, sides: Sides, trial: GateTrial, bar: Bar) -> Judged:
    """A trial's findings; an alarm between two processes has to come again in fresh ones."""
    judged = _judge(ships, sides, trial, bar)
    if not bar.same_process and any(map(_alarms, judged.findings)):
        ships.close()
        second = _judge(ships, sides, trial, bar)
        again = {f.metric: f for f in second.findings}
        judged.findings = [_confirmed(again[f.metric]) if _alarms(f) else f for f in judged.findings]
        judged.blocks, judged.coins = [*judged.blocks, *second.blocks], [*judged.coins, *second.coins]
    return judged


def _judge(ships: Fleet, sides: Sides, trial: GateTrial, bar: Bar) -> Judged:
    candidate, baseline = sides.of(trial)
    one = ships.at(candidate)
    other = one if baseline == candidate else ships.at(baseline)
    if other.hello["machine"] != one.hello["machine"]:
        raise EnvironmentFailed(
            "the two sides see different machines (torch build or threads): no time can be compared"
        )
    return judge_trial(one, other, trial, bar)


def _alarms(finding: Finding) -> bool:
    return finding.outcome == REGRESSION and finding.form == CHANGE and finding.value is not None


def _confirmed(second: Finding) -> Finding:
    """Where a process's memory lies can slow it down, so an alarm between processes has to come twice."""
    if _alarms(second):
        return replace(second, note="seen twice, in fresh processes")
    return replace(second, outcome=INCONCLUSIVE, note="an alarm that fresh processes did not repeat")
