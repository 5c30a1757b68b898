"""Which stored trials an export takes, and under which names they stand in it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import EnvironmentFailed, unknown_name
from harness.records.schema import OK
from harness.records.store import newest_of_settings, read_results, run_folders

if TYPE_CHECKING:
    import polars as pl

Row = dict[str, Any]


@dataclass(frozen=True)
class Document:
    """What an export writes: a file's name (below the folder that the user gives, if any) and its text."""

    name: str
    text: str


@dataclass
class Records:
    """The tables an export reads. ``notes`` collects what had to be left out, a line each."""

    results: Path
    tables: dict[str, pl.DataFrame]
    notes: list[str] = field(default_factory=list)

    @cached_property
    def figures(self) -> dict[str, list[Row]]:
        """Rows of the table ``measurements`` by trial."""
        return _by_trial(self.tables.get("measurements"))

    @cached_property
    def samples(self) -> dict[str, list[Row]]:
        """Rows of the table ``samples`` by trial."""
        return _by_trial(self.tables.get("samples"))

    def finished(self, *kinds: str) -> list[Row]:
        """The trials of these kinds that ended well; an older run of the same setting is superseded, also by a failure.

        Raises :class:`EnvironmentFailed` where there is none.
        """
        newest = newest_of_settings(self.tables["trials"].lazy(), "threads").collect().to_dicts()
        found = [t for t in newest if t["kind"] in kinds and t["status"] == OK]
        if not found:
            there = Counter(f"{t['kind']} {t['status']}" for t in newest)
            text = ", ".join(f"{count} {name}" for name, count in sorted(there.items()))
            raise EnvironmentFailed(
                f"no finished trial of kind {' or '.join(kinds)} among the records of {self.results} ({text});"
                f" nothing was written"
            )
        return found

    def folder(self, trial: Row) -> Path:
        """Where the trial's own files lie."""
        run = self.results / "runs" / trial["run"]
        return (run if run.is_dir() else self.results) / str(trial["trial_id"])


def _by_trial(frame: pl.DataFrame | None) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in frame.iter_rows(named=True) if frame is not None else ():
        rows[row["trial_id"]].append(row)
    return rows


def read_records(results: Path, suite: str = "", run: str = "") -> Records:
    """The records under ``results``, of one suite or one run where named. Unknown names raise :class:`UsageError`."""
    tables = read_results(_run_path(results, run) if run else results)
    if suite:
        known = set(tables["trials"]["suite"])
        if suite not in known:
            raise unknown_name("suite among the records", suite, known)
        tables["trials"] = tables["trials"].filter(tables["trials"]["suite"] == suite)
    return Records(results, tables)


def _run_path(results: Path, run: str) -> Path:
    """The folder of a run. It is read alone: among all runs a newer record of a trial would hide the run's own."""
    runs = {folder.path.name: folder.path for folder in run_folders(results)}
    if not runs and (results / "run.json").is_file():
        runs = {results.resolve().name: results}
    if run not in runs:
        raise unknown_name("run", run, runs, f"--output_path is {results}")
    return runs[run]


def options(trial: Row) -> Row:
    """The options of a trial, as they were given."""
    return dict(json.loads(trial["options"]))


def environment(trial: Row) -> Row:
    """What was noted of the machine, the versions and the code that a trial ran on."""
    return dict(json.loads(trial["environment"]))


def settings(trial: Row) -> Row:
    """What tells trials of one method, model and target apart, beside the code; the machine where it matters."""
    names = ("dtype", "device", "threads", "seed", *(("machine",) if trial["kind"] != "quality" else ()))
    flat: Row = {name: trial[name] for name in names}
    for name, value in options(trial).items():
        inner = {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
        flat.update(inner)
    return flat


def labels(trials: Sequence[Row], among: Iterable[str] = ("kind", "method", "model", "target")) -> dict[str, str]:
    """By trial, the settings that differ between it and others that are equal in ``among``; mostly empty."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    among = tuple(among)
    for trial in trials:
        groups[tuple(trial[name] for name in among)].append(trial)
    found = {}
    for group in groups.values():
        given = [settings(trial) for trial in group]
        differing = [n for n in dict.fromkeys(n for g in given for n in g) if len({str(g.get(n)) for g in given}) > 1]
        for trial, own in zip(group, given, strict=True):
            found[trial["trial_id"]] = ",".join(f"{name}={own[name]}" for name in differing if name in own)
    return found


def workload(trial: Row, phase: str) -> str:
    """What a figure of this phase was measured on: a decode workload, a task, an operator, or a probe."""
    if trial["kind"] == "cost":
        return str(trial["target"])
    if trial["kind"] == "probe":
        return f"probe.{phase}" if phase else "probe"
    return phase or str(trial["target"])


def benchmark_name(trial: Row, phase: str, label: str) -> str:
    """``chatx48n5[prompt_lookup]``, as pytest writes a parametrized test; a label stands behind the method."""
    return f"{workload(trial, phase)}[{','.join(filter(None, (trial['method'], label)))}]"
