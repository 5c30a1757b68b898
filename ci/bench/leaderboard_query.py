"""A leaderboard out of a million trials: made-up records as the store compacts them, then the query in fresh processes.

Run `python ci/bench/leaderboard_query.py [--trials N] [--runs N] [--samples N] [--folder FOLDER]`. The records stand
for years of nightly runs: about 2,000 settings, each tried again in run after run under a new trial id, a tenth of them
given up at some time, so that trials which count lie in old runs too. Prints rows, seconds and peak memory of the best
of three processes; starting Python and importing polars and the store is not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.records.leaderboard import COST_COLUMNS
from harness.records.store import TABLES

METHODS, MODELS, TASKS, WORKLOADS, REPEATS = 15, 2, 4, 6, 3
QUERY = """
import resource, sys, time
import harness.records.leaderboard, harness.records.store, polars
from pathlib import Path
started = time.perf_counter()
{query}
seconds = time.perf_counter() - started
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, found)
"""
BOARDS = """
from harness.records.leaderboard import read_boards
boards = read_boards(Path(sys.argv[1]), sys.argv[2])
found = f"{len(boards)} board(s) of {sum(len(b.rows) for b in boards)} rows"
"""
SETTLED = """
from harness.records.store import settled_trials
found = f"{len(settled_trials(Path(sys.argv[1]))):,} settled trials"
"""


def all_settings() -> pl.DataFrame:
    """Every setting once: a kind's methods (the first is the baseline) on its models, tasks and workloads."""
    targets = [("quality", f"task{i}", ("acc", "acc_norm", "choice_margin")) for i in range(TASKS)]
    rows: list[dict[str, Any]] = []
    for method_kind, columns in COST_COLUMNS.items():
        cost = [("cost", f"chatx{8 * i}n5", (columns[0], "ttft_p50", "tpot_p50")) for i in range(1, WORKLOADS + 1)]
        for kind, target, metrics in (*targets, *cost, ("probe", "all", ("mfu_prefill", "mbu_decode", "ttft_p90"))):
            for number in range(METHODS * MODELS):
                method, model = divmod(number, MODELS)
                row: dict[str, Any] = {
                    "kind": kind,
                    "method_kind": method_kind,
                    "method": f"{method_kind}_m@keep_ratio=0.{method:02}",
                }
                row |= {"baseline": f"{method_kind}_m@keep_ratio=0.00", "model": f"smollm2-{model}", "target": target}
                row |= {"dtype": "bfloat16" if model else None, "metrics": list(metrics), "device": "cpu"}
                rows.append(row | {"options": json.dumps({"batch_size": 8, "limit": 100.0, "name": target})})
    return pl.DataFrame(rows, infer_schema_length=None)


def trial_rows(chosen: pl.DataFrame, number: int, ids: list[str], rng: np.random.Generator) -> pl.DataFrame:
    """The table ``trials`` of one run."""
    versions = {
        name: f"{number % 7}.{i}.0+cpu" for i, name in enumerate(("lm_eval", "polars", "torch", "transformers"))
    }
    environment: dict[str, Any] = {
        "busy": None,
        "git": {"commit": f"{number:040x}", "dirty": False},
        "machine": "fdb166da190c",
    }
    environment |= {"variables": {"OMP_NUM_THREADS": "1"}, "versions": versions, "packages": [*map(str, range(150))]}
    start = pl.datetime(2026, 1, 1) + pl.duration(days=number, milliseconds=pl.int_range(pl.len()) * 10_000)
    return chosen.select(
        pl.lit(1, pl.Int64).alias("schema_version"),
        pl.Series("trial_id", ids),
        *("kind", "method_kind", "method", "baseline", "model", "target", "dtype", "device", "options"),
        pl.lit(1, pl.Int64).alias("threads"),
        pl.lit(0, pl.Int64).alias("seed"),
        pl.lit("nightly").alias("suite"),
        pl.lit(f"run-{number:05}").alias("run_id"),
        pl.Series("status", rng.choice(["ok", "failed"], len(ids), p=[0.98, 0.02])),
        pl.lit("").alias("reason"),
        start.dt.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").alias("started"),
        pl.Series("seconds", rng.exponential(10, len(ids))),
        pl.lit("fdb166da190c").alias("machine"),
        pl.concat_str(
            pl.lit('{"cpu_share": '),
            pl.Series("cpu_share", rng.random(len(ids))),
            pl.lit(f", {json.dumps(environment)[1:]}"),
        ).alias("environment"),
        pl.format("zoo run --method '{}' --model {} --target {} --seed 0 --rerun", "method", "model", "target").alias(
            "reproduce"
        ),
    )


def measurement_rows(chosen: pl.DataFrame, ids: list[str], rng: np.random.Generator) -> pl.DataFrame:
    """The table ``measurements`` of one run: three figures a trial."""
    figures = chosen.select(pl.Series("trial_id", ids), "baseline", "kind", "target", metric="metrics").explode(
        "metric"
    )
    value = pl.Series("value", rng.lognormal(0, 0.2, len(figures)))
    return figures.select(
        "trial_id",
        "metric",
        value,
        pl.when(pl.col("kind") == "quality").then("target").otherwise(pl.lit("")).alias("phase"),
        (value * 0.95).alias("low"),
        (value * 1.05).alias("high"),
        pl.lit(100, pl.Int64).alias("n"),
        pl.lit("clock").alias("source"),
        "baseline",
        pl.lit("x").alias("unit"),
        pl.lit("higher").alias("direction"),
    )


def sample_rows(chosen: pl.DataFrame, ids: list[str], each: int, rng: np.random.Generator) -> pl.DataFrame:
    """The table ``samples`` of one run: documents of quality trials, times of the others."""
    quality = pl.col("kind") == "quality"
    rows = chosen.select(pl.Series("trial_id", ids), "kind").select(pl.all().repeat_by(each).explode())
    return rows.select(
        "trial_id",
        pl.when(quality).then(pl.lit("document")).otherwise(pl.lit("candidate")).alias("side"),
        (pl.int_range(pl.len()) % each).alias("unit"),
        pl.when(quality).then(pl.lit("acc")).otherwise(pl.lit("total_s")).alias("name"),
        pl.Series("value", rng.random(len(rows))),
    )


def write_records(results: Path, trials: int, runs: int, samples: int) -> None:
    """Closed runs under ``results``, each as the store leaves it."""
    rng = np.random.default_rng(0)
    settings = all_settings()
    given_up = np.where(rng.random(len(settings)) < 0.1, rng.integers(1, runs + 1, len(settings)), runs)
    for number in range(runs):
        alive = np.flatnonzero(given_up > number)
        count = trials // runs + (number < trials % runs)
        chosen = settings[rng.choice(alive, count)]
        digits = rng.bytes(8 * count).hex()
        ids = [digits[i : i + 16] for i in range(0, len(digits), 16)]
        folder = results / "runs" / f"run-{number:05}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"closed": True, "run_id": folder.name, "suite": {}, "scope": {}}))
        trial_rows(chosen, number, ids, rng).write_parquet(folder / "trials.parquet")
        measurement_rows(chosen, ids, rng).write_parquet(folder / "measurements.parquet")
        sample_rows(chosen, ids, samples, rng).write_parquet(folder / "samples.parquet")


def time_query(name: str, query: str, arguments: list[str]) -> None:
    """Run a query three times, each in a process of its own, and print the fastest."""
    command = [sys.executable, "-c", QUERY.format(query=query), *arguments]
    runs = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(maxsplit=2)
        for _ in range(REPEATS)
    ]
    times = ", ".join(f"{float(run[0]):.2f}" for run in runs)
    best = min(runs, key=lambda run: float(run[0]))
    print(
        f"{name}: {float(best[0]):.2f} s ({times}), peak memory {float(best[1]):.0f} MB, {best[2].strip()}", flush=True
    )


def main() -> None:
    """Write the records and time the queries."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--samples", type=int, default=10, help="raw samples of each trial")
    parser.add_argument("--folder", type=Path, help="keep the records here, and read them if they are there")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = chosen.folder or Path(scratch)
        if not (results / "runs").is_dir():
            write_records(results, chosen.trials, chosen.runs, chosen.samples)
        for table in TABLES:
            rows = pl.scan_parquet(results / f"runs/*/{table}.parquet").select(pl.len()).collect().item()
            size = sum(file.stat().st_size for file in results.glob(f"runs/*/{table}.parquet"))
            print(f"{table}: {rows:,} rows, {size / 1e6:.0f} MB")
        print(f"{len(all_settings()):,} settings in {len(list(results.glob('runs/*'))):,} runs", flush=True)
        time_query("one kind", BOARDS, [str(results), "speculative"])
        time_query("all kinds", BOARDS, [str(results), ""])
        time_query("settled_trials", SETTLED, [str(results)])


if __name__ == "__main__":
    main()
