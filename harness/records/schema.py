"""The tables of a record. Each trial's folder holds one small parquet file of each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from harness.records.metrics import metric

if TYPE_CHECKING:
    import polars as pl

SCHEMA_VERSION = 1
OK, AS_BASELINE, REFUSED, FAILED, TIMEOUT, CRASHED, OUT_OF_MEMORY = (
    "ok",
    "as baseline",
    "refused",
    "failed",
    "timeout",
    "crashed",
    "out of memory",
)
SETTLED = (OK, AS_BASELINE, REFUSED)
"""Statuses that running the same trial again would not change."""


@dataclass(frozen=True, kw_only=True)
class MeasurementRow:
    """One figure of a trial. ``source``: lm-eval, clock, count, counter, model, probe, or "none: reason"."""

    metric: str
    value: float | None
    phase: str = ""
    low: float | None = None
    high: float | None = None
    n: int | None = None
    source: str = "clock"
    baseline: str = ""


@dataclass(kw_only=True)
class TrialRecord:
    """What a finished trial leaves: who it was, how it ended, its figures and its raw samples."""

    trial: dict[str, Any]
    status: str
    reason: str = ""
    started: str = ""
    seconds: float = 0.0
    environment: dict[str, Any] = field(default_factory=dict)
    measurements: list[MeasurementRow] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)


def trial_frame(record: TrialRecord) -> pl.DataFrame:
    """One row of the table ``trials``: nested things as JSON text."""
    import json

    import polars as pl

    trial = record.trial
    flat = {
        k: trial[k]
        for k in ("trial_id", "kind", "method_kind", "method", "baseline", "model", "target", "dtype", "device")
    }
    row = {
        "schema_version": SCHEMA_VERSION,
        **flat,
        "options": json.dumps(trial["options"], sort_keys=True),
        "threads": trial["threads"],
        "seed": trial["seed"],
        "suite": trial.get("suite", ""),
        "run_id": trial.get("run_id", ""),
        "status": record.status,
        "reason": record.reason,
        "started": record.started,
        "seconds": record.seconds,
        "machine": record.environment.get("machine", ""),
        "environment": json.dumps(record.environment, sort_keys=True, default=str),
        "reproduce": trial.get("reproduce", ""),
    }
    return pl.DataFrame([row])


def measurement_frame(record: TrialRecord) -> pl.DataFrame:
    """The table ``measurements`` of a trial."""
    import polars as pl

    rows = [
        {
            "trial_id": record.trial["trial_id"],
            **asdict(row),
            "unit": metric(row.metric).unit,
            "direction": metric(row.metric).direction,
        }
        for row in record.measurements
    ]
    schema = {
        "trial_id": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "phase": pl.String,
        "low": pl.Float64,
        "high": pl.Float64,
        "n": pl.Int64,
        "source": pl.String,
        "baseline": pl.String,
        "unit": pl.String,
        "direction": pl.String,
    }
    return pl.DataFrame(rows, schema=schema)


def sample_frame(record: TrialRecord) -> pl.DataFrame:
    """The table ``samples``: raw values, one a row, in the order in which they were taken."""
    import polars as pl

    schema = {
        "trial_id": pl.String,
        "side": pl.String,
        "unit": pl.Int64,
        "name": pl.String,
        "value": pl.Float64,
    }
    rows = [{"trial_id": record.trial["trial_id"], **row} for row in record.samples]
    return pl.DataFrame(rows, schema=schema)
