"""Bencher Metric Format: ``{benchmark: {measure: {value, lower_value, upper_value}}}``.

A measure's slug is the metric's name in kebab case; units and directions stand in the dictionary of metrics, as the
format has no place for them. A figure that was modelled and not measured says so in its slug.
"""

from __future__ import annotations

import json
import math
import re

from harness.records.export.selection import Document, Records, Row, benchmark_name, labels

KINDS = ("quality", "cost", "workload", "probe")


def documents(records: Records) -> list[Document]:
    """One document with every figure. Raises :class:`EnvironmentFailed` where no trial has finished."""
    trials = records.finished(*KINDS)
    named = labels(trials)
    benchmarks: dict[str, dict[str, dict[str, float]]] = {}
    for trial in trials:
        for row in records.figures[trial["trial_id"]]:
            if row["value"] is None or not math.isfinite(row["value"]):
                continue
            name = f"{trial['model']}/{benchmark_name(trial, row['phase'], named[trial['trial_id']])}"
            measures = benchmarks.setdefault(name, {})
            measures[_unused(slug(row), measures)] = _metric(row)
    return [Document("bencher.json", json.dumps(benchmarks, indent=2))]


def slug(row: Row) -> str:
    """A metric's name in kebab case."""
    words = re.findall(r"[a-z0-9]+", row["metric"].lower())
    return "-".join([*words, *(["model"] if row["source"] == "model" else [])])


def _unused(name: str, taken: dict[str, dict[str, float]]) -> str:
    """lm-eval gives a metric once a filter, all under one name here: the second is numbered, in lm-eval's order."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}-{count}"
    return free


def _metric(row: Row) -> dict[str, float]:
    keys = {"value": "value", "low": "lower_value", "high": "upper_value"}
    return {theirs: row[ours] for ours, theirs in keys.items() if row[ours] is not None and math.isfinite(row[ours])}
