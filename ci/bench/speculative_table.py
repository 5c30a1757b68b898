"""Tables of a speculative run: speed-up by group with the geometric mean of all, and acceptance against noise.

    python ci/bench/speculative_table.py results/speculative > table.md

Rows come from the records alone. A group's figure is the geometric mean of its prompts' ratios with its 95 % interval;
the last column is the geometric mean over the groups. Tables of records that lack a figure (older ones do not know of
loops) are left out.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import polars as pl

from harness.records.store import read_newest
from tasks.spec_groups import GROUPS

METRICS = (
    "speedup_total", "speedup_total_no_loops", "speedup_decode", "speedup_decode_no_loops", "speedup_bound",
    "mean_accepted_tokens", "loop_share", "plain_step_share", "host_time_share",
)  # fmt: skip


def figures(folder: Path) -> pl.DataFrame:
    """Every cost figure of the six groups: method, workload, metric, phase, value and interval."""
    text, number = pl.String, pl.Float64
    trials = dict.fromkeys(("trial_id", "method", "target"), text)
    values = {**dict.fromkeys(("trial_id", "metric", "phase"), text), **dict.fromkeys(("value", "low", "high"), number)}
    found = read_newest(folder, {"trials": trials, "measurements": values}, kind="cost", method_kind="speculative")
    return (
        found["measurements"]
        .join(found["trials"].rename({"target": "workload"}), on="trial_id")
        .select("method", "workload", "metric", "phase", "value", "low", "high")
    )


def table(rows: pl.DataFrame, metric: str, forced: bool) -> list[str]:
    """Methods by groups."""
    found = rows.filter(pl.col("metric") == metric)
    lines = [f"| {metric} | " + " | ".join(GROUPS) + " | geometric mean |", "|---" * (len(GROUPS) + 2) + "|"]
    for method in found["method"].unique(maintain_order=True):
        cells, values = [], []
        for group in GROUPS:
            suffix = "f" if forced else ""
            match = found.filter(
                (pl.col("method") == method) & pl.col("workload").str.contains(rf"^{group}x\d+n\d+{suffix}$")
            )
            if match.is_empty():
                cells.append("")
                continue
            value, low, high = match.row(0)[4:7]
            values.append(value)
            cells.append(f"{value:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low is not None else ""))
        if values:
            whole = pl.Series(values).log().mean() if min(values) > 0 else None
            mean = f"{pl.Series([whole]).exp()[0]:.2f}" if whole is not None and len(values) == len(GROUPS) else ""
            lines.append(f"| {method} | " + " | ".join(cells) + f" | {mean} |")
    return lines


def noise_table(rows: pl.DataFrame) -> list[str]:
    """Acceptance by place for each share of noise in the draft's weights."""
    found = rows.filter(pl.col("method").str.contains("draft=noised:"))
    lines = ["| noise | workload | mean accepted tokens | accepted 1 | 2 | 3 | 4 |", "|---" * 7 + "|"]
    for (method, workload), part in found.group_by("method", "workload", maintain_order=True):
        share = re.search(r"noised:([0-9.]+)", str(method))
        accepted = dict(part.filter(pl.col("metric") == "accepted_share").select("phase", "value").iter_rows())
        mean = part.filter(pl.col("metric") == "mean_accepted_tokens")["value"][0]
        cells = [f"{accepted.get(str(place), 0.0):.2f}" for place in range(1, 5)]
        lines.append(f"| {share[1] if share else ''} | {workload} | {mean:.2f} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Print all tables."""
    rows = figures(Path(sys.argv[1]))
    plain = rows.filter(~pl.col("method").str.contains("noised:"))
    tables = [*(table(plain, metric, forced=True) for metric in METRICS), table(plain, "same_text_share", forced=False)]
    for lines in tables:
        if len(lines) > 2:
            print("\n".join(lines), end="\n\n")
    print("\n".join(noise_table(rows)))


if __name__ == "__main__":
    main()
