"""CSV: one row a measurement, beside the trial it belongs to. A trial without figures is a row with its status."""

from __future__ import annotations

from harness.records.export.selection import Document, Records
from harness.records.schema import OK

FIGURE = ("metric", "phase", "value", "low", "high", "n", "unit", "direction", "source")
LEFT_OUT = ("environment", "schema_version")


def documents(records: Records) -> list[Document]:
    """One document with every trial, superseded ones too."""
    import polars as pl

    trials = records.tables["trials"].drop(LEFT_OUT)
    figures = records.tables.get("measurements")
    if figures is None:
        figures = pl.DataFrame(schema=dict.fromkeys(("trial_id", *FIGURE), pl.String))
    finished = trials.filter(trials["status"] == OK).select("trial_id")
    shown = figures.select("trial_id", *FIGURE).join(finished, on="trial_id", how="semi")
    table = trials.join(shown, on="trial_id", how="left", maintain_order="left_right")
    last = [name for name in ("options", "reproduce") if name in table.columns]
    return [Document("measurements.csv", table.select(pl.exclude(last), *last).write_csv())]
