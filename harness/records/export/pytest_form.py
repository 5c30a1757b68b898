"""The JSON of pytest-benchmark: one benchmark a cost trial, or a workload of a workload trial.

Its statistics are pytest-benchmark's own, over the candidate's raw wall times. The paired ratio to the baseline, which
is the figure to trust, rides in ``extra_info`` with its interval.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from harness.records.export.selection import Document, Records, Row, benchmark_name, environment, labels, workload

WALL, REQUEST = ".wall_s", "total_s"
"""Names of the raw samples: of a workload's calls, and of a decode workload's whole requests."""


def documents(records: Records) -> list[Document]:
    """One document with all benchmarks. Raises :class:`EnvironmentFailed` without a finished cost or workload trial."""
    trials = records.finished("cost", "workload")
    named = labels(trials)
    machines = {trial["machine"] for trial in trials}
    benchmarks = []
    for trial in trials:
        series = dict(_series(trial, records.samples[trial["trial_id"]]))
        if not series:
            records.notes.append(f"no raw times are kept of {trial['method']} on {trial['target']}; left out")
        for phase, times in series.items():
            entry = _entry(trial, phase, named[trial["trial_id"]], times, records.figures[trial["trial_id"]])
            entry["group"] += f" on {trial['machine']}" if len(machines) > 1 else ""
            benchmarks.append(entry)
    newest = max(trials, key=lambda trial: str(trial["started"]))
    document = {
        "machine_info": _machine_info(trials),
        "commit_info": _commit_info(newest),
        "benchmarks": benchmarks,
        "datetime": newest["started"],
        "version": version("pytest-benchmark"),
    }
    return [Document("pytest-benchmark.json", json.dumps(document, indent=4))]


def _series(trial: Row, samples: list[Row]) -> Iterator[tuple[str, list[float]]]:
    """The candidate's wall times in seconds by phase, in the order in which they were taken."""
    times: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        name = sample["name"]
        if sample["side"] != "candidate":
            continue
        if trial["kind"] == "cost" and name == REQUEST:
            times[""].append(sample["value"])
        elif trial["kind"] == "workload" and name.endswith(WALL):
            times[name.removesuffix(WALL)].append(sample["value"])
    yield from times.items()


def _entry(trial: Row, phase: str, label: str, times: list[float], figures: list[Row]) -> Row:
    from pytest_benchmark.stats import Stats

    stats: Any = Stats()  # type: ignore[no-untyped-call]
    for seconds in times:
        stats.update(seconds)
    name = benchmark_name(trial, phase, label)
    return {
        "group": " ".join(_group(trial, phase)),
        "name": name,
        "fullname": f"{trial['model']}/{name}",
        "params": {key: trial[key] for key in ("method", "model", "dtype", "device", "threads", "seed", "machine")},
        "param": trial["method"],
        "extra_info": _extra_info(trial, phase, figures),
        "options": {},
        "stats": {**stats.as_dict(), "data": stats.data, "iterations": 1},
    }


def _group(trial: Row, phase: str) -> Iterator[str]:
    """What is compared with each other; kinds may use one name for different operators."""
    yield trial["model"]
    if trial["kind"] == "workload":
        yield trial["method_kind"]
    yield workload(trial, phase)


def _extra_info(trial: Row, phase: str, figures: list[Row]) -> Row:
    """The paired ratios of this phase with their intervals, and where they come from."""
    ratios = {
        row["metric"]: {key: row[key] for key in ("value", "low", "high", "n")}
        for row in figures
        if row["metric"].startswith("speedup") and row["phase"] == phase and row["value"] is not None
    }
    noted = environment(trial)
    return {
        "trial_id": trial["trial_id"],
        "baseline": trial["baseline"],
        **ratios,
        "cpu_share": noted.get("cpu_share"),
        "busy": noted.get("busy"),
        "commit": (noted.get("git") or {}).get("commit"),
    }


def _machine_info(trials: list[Row]) -> Row:
    """The machine of the records, which need not be the one that exports them; several are all named."""
    noted = [environment(trial) for trial in trials]

    def all_of(values: list[Any]) -> str:
        return "; ".join(dict.fromkeys(str(value) for value in values if value))

    return {
        "node": all_of([trial["machine"] for trial in trials]),
        "python_version": all_of([(e.get("versions") or {}).get("python") for e in noted]),
        "cpu": {"brand_raw": all_of([e.get("machine_label") for e in noted])},
    }


def _commit_info(newest: Row) -> Row:
    git = environment(newest).get("git") or {}
    return {
        "id": git.get("commit", "unversioned"),
        "time": None,
        "author_time": None,
        "dirty": git.get("dirty", False),
        "project": "token-zoo",
        "branch": "(unknown)",
    }
