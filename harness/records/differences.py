"""Differences of quality to the baseline, paired by document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.records.schema import OK
from harness.stats.intervals import mean_interval

if TYPE_CHECKING:
    import polars as pl


def baseline_differences(
    tables: Mapping[str, pl.DataFrame], trials: Sequence[dict[str, Any]]
) -> dict[tuple[str, str], tuple[float, float | None, float | None]]:
    """Mean difference to the baseline with its 95 % interval, paired by document, for each trial and metric."""
    import polars as pl

    quality = [t for t in trials if t["kind"] == "quality" and t["status"] == OK]
    if "samples" not in tables or not quality:
        return {}
    baseline_of = {}
    same = ("model", "target", "options", "dtype", "device", "seed")
    by_setting = {(t["method"], *(t[k] for k in same)): t["trial_id"] for t in quality}
    for trial in quality:
        other = by_setting.get((trial["baseline"], *(trial[k] for k in same)))
        if other and other != trial["trial_id"]:
            baseline_of[trial["trial_id"]] = other
    pairs = pl.DataFrame(
        {"trial_id": list(baseline_of), "other": list(baseline_of.values())},
        schema={"trial_id": pl.String, "other": pl.String},
    )
    samples = tables["samples"].filter(pl.col("side") == "document").select("trial_id", "unit", "name", "value")
    joined = (
        samples.join(pairs, on="trial_id")
        .join(samples, left_on=["other", "unit", "name"], right_on=["trial_id", "unit", "name"], suffix="_base")
        .with_columns((pl.col("value") - pl.col("value_base")).alias("difference"))
    )
    found = {}
    for (trial_id, name), group in joined.group_by("trial_id", "name"):
        estimate = mean_interval(group["difference"].to_list())
        found[str(trial_id), str(name)] = (estimate.value, estimate.low, estimate.high)
    return found
