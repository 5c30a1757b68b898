"""Trials that differ in their seed alone, put together: means with intervals over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import MutableMapping, Sequence
from typing import Any

from harness.records.schema import AS_BASELINE, OK
from harness.records.store import SETTING
from harness.stats.intervals import mean_interval

Figures = MutableMapping[str, list[dict[str, Any]]]
Differences = MutableMapping[tuple[str, str], tuple[float, float | None, float | None]]


def join_seeds(trials: Sequence[dict[str, Any]], figures: Figures, differences: Differences) -> list[dict[str, Any]]:
    """One trial for each setting; of several seeds it has ``seeds``, their joint figures and mean differences.

    A figure that every seed has is the mean over seeds, with Student's t interval between them and ``n`` seeds: the
    noise within a seed is part of the noise between them. A trial that failed with one seed has failed.
    """
    settings: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for trial in trials:
        same = tuple(trial[name] for name in SETTING if name != "seed")
        settings[(*same, trial["machine"] if trial["kind"] != "quality" else "")].append(trial)
    return [_joined(several, figures, differences) if len(several) > 1 else several[0] for several in settings.values()]


def _joined(several: Sequence[dict[str, Any]], figures: Figures, differences: Differences) -> dict[str, Any]:
    bad = [trial for trial in several if trial["status"] not in (OK, AS_BASELINE)]
    first = dict((bad or several)[0])
    name = "+".join(sorted(trial["trial_id"] for trial in several))
    values: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for trial in several:
        for figure in figures.get(trial["trial_id"], ()):
            values[figure["metric"], figure["phase"]].append(figure)
    figures[name] = [_mean(found) for found in values.values() if len(found) == len(several)]
    ids = [trial["trial_id"] for trial in several]
    for metric in {metric for trial_id, metric in differences if trial_id in ids}:
        held = [differences[trial_id, metric][0] for trial_id in ids if (trial_id, metric) in differences]
        if len(held) == len(several):
            estimate = mean_interval(held)
            differences[name, metric] = (estimate.value, estimate.low, estimate.high)
    return {**first, "trial_id": name, "seeds": len(several)}


def _mean(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    estimate = mean_interval([figure["value"] for figure in found])
    return {**found[0], "value": estimate.value, "low": estimate.low, "high": estimate.high, "n": len(found)}
