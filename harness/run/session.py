"""One run from plan to closed folder: what `zoo run` does, and what `harness.run` offers to Python."""

from __future__ import annotations

import datetime
import secrets
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.records.store import RunFolder, run_folders, settled_trials
from harness.run.execute import Limits, Listener, run_groups
from harness.run.plan import Scope, group_trials, make_trials
from harness.run.suite import Suite, parse_suite
from harness.run.trial import COST, PROBE, WORKLOAD, Trial


@dataclass
class Plan:
    """What is going to be run, and what need not be because it is recorded already."""

    suite: Suite
    scope: Scope
    trials: list[dict[str, Any]]
    recorded: int = 0


@dataclass
class Summary:
    """How a run ended."""

    folder: Path | None
    ran: int
    recorded: int
    statuses: Counter[str] = field(default_factory=Counter)


def machine_digest(trials: list[Trial], threads: int) -> str:
    """The machine's key where a trial measures cost; reading it imports torch, so only then."""
    if not any(t.kind in (COST, WORKLOAD, PROBE) for t in trials):
        return ""
    import torch

    from harness.measure.machine import machine_key

    torch.set_num_threads(threads)
    return machine_key().digest


def make_plan(suite: Suite, scope: Scope, results: Path, rerun: bool = False) -> Plan:
    """The trials of a suite; those recorded under the same id are left out unless ``rerun``."""
    trials = make_trials(suite, scope)
    if not trials:
        raise UsageError(f"suite {suite.name} holds no trial for these options; give --tasks, --decode or a suite")
    machine = machine_digest(trials, scope.threads)
    rows = [{**t.as_dict(machine), "suite": suite.name} for t in trials]
    settled = set() if rerun else settled_trials(results)
    wanted = [row for row in rows if row["trial_id"] not in settled]
    return Plan(suite, scope, wanted, len(rows) - len(wanted))


def execute_plan(plan: Plan, results: Path, listen: Listener, folder: RunFolder | None = None) -> Summary:
    """Run a plan's trials into a new folder, or go on in ``folder``; the folder is closed when all have run."""
    summary = Summary(folder.path if folder else None, len(plan.trials), plan.recorded)
    if not plan.trials and folder is None:
        return summary
    if folder is None:
        now = datetime.datetime.now(datetime.UTC)
        run_id = f"{now:%Y%m%d-%H%M%S}-{plan.suite.name}-{secrets.token_hex(2)}"
        folder = RunFolder.create(results, run_id, {"suite": plan.suite.model_dump(), "scope": asdict(plan.scope)})
        summary.folder = folder.path

    def count(event: dict[str, Any]) -> None:
        if event["event"] == "done":
            summary.statuses[event["status"]] += 1
        listen(event)

    with folder.locked():
        trials = [{**t, "run_id": folder.path.name} for t in plan.trials]
        limits = Limits(plan.suite.trial_limit_s, plan.suite.memory_limit_gb)
        run_groups(folder, group_trials(trials), limits, count)
        folder.close()
    return summary


def find_unfinished(results: Path, run_id: str = "") -> RunFolder:
    """The named run, or the newest one that was not closed."""
    open_runs = [run for run in run_folders(results) if not run.plan["closed"]]
    if run_id:
        named = [run for run in run_folders(results) if run.path.name == run_id]
        if not named:
            raise UsageError(f"no run {run_id!r} under {results}")
        return named[0]
    if not open_runs:
        raise UsageError(f"nothing to resume under {results}: every run there is closed")
    return open_runs[-1]


def resume_plan(folder: RunFolder) -> Plan:
    """The plan of an interrupted run, less what it has settled."""
    written = folder.plan
    scope = Scope(**{**written["scope"], "include_path": tuple(written["scope"]["include_path"])})
    return make_plan(parse_suite(written["suite"], str(folder.path)), scope, folder.path)
