"""Runs a recorded trial again and says whether its figures come out the same."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.records.schema import OK
from harness.records.store import RunFolder, read_results
from harness.run.execute import Limits, run_groups
from harness.run.session import machine_digest
from harness.run.trial import Trial

if TYPE_CHECKING:
    import polars as pl

SAME, DIFFERS, IMPOSSIBLE = "same", "differs", "cannot be reproduced here"
EXACT = ("count", "lm-eval", "probe")
EXACT_TOLERANCE = 1e-6
OF_THE_MOMENT = ("peak_memory_bytes",)
"""Counts that belong to a process and a moment; like absolute times they are shown, not judged."""
IDENTITY = ("kind", "method", "model", "target", "dtype", "device", "threads", "seed")


@dataclass(frozen=True)
class Compared:
    """One figure then and now. ``verdict``: same, differs or not judged."""

    metric: str
    phase: str
    then: float
    now: float | None
    verdict: str
    why: str = ""


@dataclass
class Reproduction:
    """The verdict on a whole trial, what was compared, and what has changed around it."""

    trial_id: str
    trial: str
    verdict: str
    reason: str = ""
    figures: list[Compared] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """The verdict in plain words."""
        differing = [f for f in self.figures if f.verdict == DIFFERS]
        judged = [f for f in self.figures if f.verdict in (SAME, DIFFERS)]
        if self.verdict == IMPOSSIBLE:
            return f"{self.trial}: {IMPOSSIBLE}: {self.reason}"
        if self.verdict == SAME:
            agree = "1 figure agrees within its interval" if len(judged) == 1 else ""
            return f"{self.trial}: same; {agree or f'{len(judged)} figures agree within their intervals'}"
        named = "; ".join(f"{f.metric} was {f.then:.4g}, is {_shown(f.now)} ({f.why})" for f in differing)
        return f"{self.trial}: differs in {len(differing)} of {len(judged)} figures: {named}"


def _shown(value: float | None) -> str:
    return "missing" if value is None else f"{value:.4g}"


def find_trial(results: Path, trial_id: str) -> dict[str, Any]:
    """A finished trial's row with its figures, by its id or the start of it."""
    tables = read_results(results)
    trials = tables["trials"]
    rows = trials.filter(trials["trial_id"].str.starts_with(trial_id)).to_dicts() if trial_id else []
    if len(rows) != 1:
        many = f"{len(rows)} trials begin with {trial_id!r}; give more of the id"
        none = f"no trial {trial_id!r} under {results}; `zoo export csv` lists them, --output_path says where they are"
        raise UsageError(many if rows else none)
    row = rows[0]
    if row["status"] != OK:
        raise UsageError(f"trial {row['trial_id']} ended as {row['status']} ({row['reason']}): there is no figure")
    figures = tables["measurements"]
    return {**row, "figures": figures.filter(figures["trial_id"] == row["trial_id"]).to_dicts()}


def reproduce(results: Path, trial_id: str, tell: Callable[[dict[str, Any]], None] = lambda _: None) -> Reproduction:
    """Run a recorded trial once more, apart from the records, and compare its figures."""
    then = find_trial(results, trial_id)
    name = f"{then['method']} on {then['target']} ({then['model']})"
    options = json.loads(then["options"])
    trial = Trial(**{key: then[key] for key in IDENTITY}, options=options)
    recorded = json.loads(then["environment"])
    machine = machine_digest([trial], trial.threads)
    found = Reproduction(then["trial_id"], name, SAME)
    try:
        found.changes = _changes(then, recorded, trial, machine)
        tables = _run_again(trial, machine, tell)
    except UsageError as error:
        found.verdict, found.reason = IMPOSSIBLE, str(error)
        return found
    now = tables["trials"].row(0, named=True)
    there = json.loads(now["environment"])
    old, new = recorded.get("weights"), there.get("weights")
    if now["status"] != OK:
        found.verdict, found.reason = IMPOSSIBLE, f"it ended as {now['status']}: {now['reason']}"
    elif old and new and old != new:
        found.verdict, found.reason = IMPOSSIBLE, f"the model is another: its weights are {new}, they were {old}"
    else:
        found.figures = compare_figures(then["figures"], tables["measurements"].to_dicts())
        verdicts = {f.verdict for f in found.figures}
        found.verdict = DIFFERS if DIFFERS in verdicts else SAME if SAME in verdicts else IMPOSSIBLE
        found.reason = "none of its figures can be judged" if found.verdict == IMPOSSIBLE else ""
    return found


def _run_again(trial: Trial, machine: str, tell: Callable[[dict[str, Any]], None]) -> dict[str, pl.DataFrame]:
    """The tables of the trial, performed in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as work:
        folder = RunFolder.create(Path(work), "again", {})
        row = {**trial.as_dict(machine), "run_id": "again"}
        run_groups(folder, [[row]], Limits(3600.0, 1e6), tell)
        return read_results(folder.path)


def _changes(then: Mapping[str, Any], recorded: Mapping[str, Any], trial: Trial, machine: str) -> list[str]:
    """What is not as it was: versions, machine, sources."""
    from harness.measure.provenance import versions

    was, now = recorded.get("versions") or {}, versions()
    changes = [f"{name} was {was[name]}, is {now.get(name)}" for name in sorted(was) if was[name] != now.get(name)]
    if machine and machine != then["machine"]:
        changes.append(f"the machine was {recorded.get('machine_label', then['machine'])}; this is {machine}")
    if not changes and trial.trial_id(machine) != then["trial_id"]:
        commit = (recorded.get("git") or {}).get("commit", "")[:12]
        changes.append(f"the sources have changed since{f' commit {commit}' if commit else ' then'}")
    return changes


def compare_figures(then: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[Compared]:
    """Every recorded figure beside the new one. A figure without noise must be equal, an estimate within its interval,
    an absolute time is not judged."""
    anew: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in now:
        anew.setdefault((row["metric"], row["phase"]), []).append(row)
    found = []
    for row in then:
        if row["value"] is None:
            continue
        others = anew.get((row["metric"], row["phase"]), [])
        other = others.pop(0) if others else None
        verdict, why = judge_figure(row, other)
        value = None if other is None else other["value"]
        found.append(Compared(row["metric"], row["phase"], row["value"], value, verdict, why))
    return found


def judge_figure(then: Mapping[str, Any], now: Mapping[str, Any] | None) -> tuple[str, str]:
    """Same, differs or not judged, and why."""
    exact = then["source"] in EXACT and then["metric"] not in OF_THE_MOMENT
    if not exact and (then["low"] is None or then["source"] == "model"):
        return "not judged", "an absolute or modelled figure"
    if now is None or now["value"] is None:
        return DIFFERS, "the figure is missing now"
    gap = abs(now["value"] - then["value"])
    if gap <= EXACT_TOLERANCE * max(1.0, abs(then["value"])):
        return SAME, "equal"
    if exact:
        return DIFFERS, "it has no noise and must be equal"
    allowed = math.hypot(_half(then), _half(now))
    return (SAME if gap <= allowed else DIFFERS), f"the intervals allow {allowed:.2g}"


def _half(row: Mapping[str, Any]) -> float:
    return math.inf if row["low"] is None or row["high"] is None else (row["high"] - row["low"]) / 2
