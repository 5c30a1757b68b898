"""The store: a folder a run, a folder a trial, each written under a temporary name and renamed into place.

Nothing is shared between runs and nothing is rewritten, so a kill at any moment loses at most the trial in flight.
A run that closes is compacted into one file a table.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import EnvironmentFailed, UsageError
from harness.records.schema import SETTLED, TrialRecord, measurement_frame, sample_frame, trial_frame

if TYPE_CHECKING:
    import polars as pl

TABLES = ("trials", "measurements", "samples")
SETTING = ("method_kind", "kind", "method", "model", "target", "options", "dtype", "device", "seed")
"""What was tried, whatever the sources were; of a cost the machine belongs to it as well."""


class RunFolder:
    """One run's folder under ``<results>/runs``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, results: Path, run_id: str, plan: dict[str, Any]) -> RunFolder:
        """Make the folder and write down what is going to be run."""
        folder = cls(results / "runs" / run_id)
        try:
            folder.path.mkdir(parents=True)
            folder._write_json("run.json", {**plan, "run_id": run_id, "closed": False})
        except OSError as error:
            raise EnvironmentFailed(
                f"cannot write results into {folder.path}: {error.strerror}; give a writable --output_path"
            ) from error
        return folder

    @property
    def plan(self) -> dict[str, Any]:
        """What the run was asked to do."""
        try:
            return json.loads((self.path / "run.json").read_text())  # type: ignore[no-any-return]
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.path} is not a run folder: {error}") from error

    @property
    def closed(self) -> bool:
        """Whether every trial of the run is in its compacted files."""
        return (self.path / "run.json").is_file() and bool(self.plan.get("closed"))

    def files(self, table: str) -> list[Path]:
        """A table's files: the compacted one, then those of trials stored since."""
        compacted = self.path / f"{table}.parquet"
        # The folders of a closed run can be many and hold no tables: looking into each would cost more than reading.
        fresh = [] if self.closed else sorted(self.path.glob(f"*/{table}.parquet"))
        # A folder whose name starts with a dot is a trial that was cut off while it was written.
        fresh = [file for file in fresh if not file.parent.name.startswith(".")]
        return [compacted, *fresh] if compacted.is_file() else fresh

    def _write_json(self, name: str, value: Any) -> None:
        work = self.path / f".{name}.{os.getpid()}"
        work.write_text(json.dumps(value, indent=1, sort_keys=True, default=str))
        work.replace(self.path / name)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run; a second process that wants it is refused."""
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(
                    f"run {self.path.name} is in progress in another process; wait for it or start a new run"
                ) from error
            yield

    def scratch(self) -> Path:
        """A fresh folder in which a trial may write files before it is stored."""
        return Path(tempfile.mkdtemp(prefix=".trial-", dir=self.path))

    def store(self, record: TrialRecord, work: Path | None = None) -> None:
        """Store a finished trial; a trial of the same id is replaced."""
        try:
            if self.closed:
                self._write_json("run.json", {**self.plan, "closed": False})
            work = work or self.scratch()
            trial_frame(record).write_parquet(work / "trials.parquet")
            measurement_frame(record).write_parquet(work / "measurements.parquet")
            sample_frame(record).write_parquet(work / "samples.parquet")
            target = self.path / record.trial["trial_id"]
            if target.exists():
                shutil.rmtree(target)
            work.replace(target)
        except OSError as error:
            raise EnvironmentFailed(
                f"cannot store a trial in {self.path}: {error.strerror or error}; finished trials are safe"
            ) from error

    def close(self) -> None:
        """Compact the trials' small files into one file a table and mark the run closed."""
        for leftover in self.path.glob(".trial-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for table in TABLES:
            frame = read_table(self, table)
            if frame is not None:
                work = self.path / f".{table}.parquet"
                frame.write_parquet(work)
                work.replace(self.path / f"{table}.parquet")
        for folder in self.trial_folders():
            for table in TABLES:
                (folder / f"{table}.parquet").unlink(missing_ok=True)
        self._write_json("run.json", {**self.plan, "closed": True})

    def trial_folders(self) -> list[Path]:
        """Folders of stored trials."""
        return sorted(p for p in self.path.iterdir() if p.is_dir() and not p.name.startswith("."))


def read_table(run: RunFolder, table: str) -> pl.DataFrame | None:
    """A table of one run: the compacted file and the trials stored since; the newest row of a trial counts."""
    import polars as pl

    files = run.files(table)
    frames = [pl.read_parquet(file) for file in files]
    if files and files[0].parent == run.path:
        newer = [file.parent.name for file in files[1:]]
        frames[0] = frames[0].filter(~pl.col("trial_id").is_in(newer))
    return pl.concat(frames, how="diagonal_relaxed") if frames else None


def run_folders(results: Path) -> list[RunFolder]:
    """All runs under a results folder, oldest first; of one run's folder that run."""
    if (results / "trials.parquet").is_file() or (results / "run.json").is_file():
        return [RunFolder(results)]
    root = results / "runs"
    if not root.is_dir():
        return []
    return [RunFolder(p) for p in sorted(root.iterdir()) if (p / "run.json").is_file()]


def read_results(results: Path) -> dict[str, pl.DataFrame]:
    """All tables of all runs; of a trial that was run twice the newest counts. ``results`` may be one run's folder."""
    import polars as pl

    tables: dict[str, list[pl.DataFrame]] = {t: [] for t in TABLES}
    for run in run_folders(results):
        for table in TABLES:
            frame = read_table(run, table)
            if frame is not None:
                tables[table].append(frame.with_columns(pl.lit(run.path.name).alias("run")))
    if not tables["trials"]:
        raise _no_records(results)
    trials = pl.concat(tables["trials"], how="diagonal_relaxed").sort("started", maintain_order=True)
    newest = trials.unique("trial_id", keep="last", maintain_order=True)
    keys = newest.select("trial_id", "run")
    joined = {
        table: pl.concat(tables[table], how="diagonal_relaxed").join(keys, on=["trial_id", "run"], how="semi")
        for table in ("measurements", "samples")
        if tables[table]
    }
    return {"trials": newest, **joined}


def _no_records(results: Path) -> EnvironmentFailed:
    return EnvironmentFailed(f"no records under {results}; run `zoo run` first, or give --output_path")


def scan_table(results: Path, table: str, schema: Mapping[str, Any]) -> pl.LazyFrame:
    """Some columns of a table of all runs, with the ``file`` of each row; nothing is read before it is collected.

    ``schema`` gives the columns and their polars types; a column that older records lack is null. A trial that was run
    twice has several rows, older runs first.
    """
    import polars as pl

    files = [file for run in run_folders(results) for file in run.files(table)]
    if not files and table == "trials":
        raise _no_records(results)
    if not files:
        return pl.LazyFrame(schema={**schema, "file": pl.String})
    columns: dict[str, Any] = {"schema": dict(schema), "missing_columns": "insert", "extra_columns": "ignore"}
    return pl.scan_parquet(files, **columns, glob=False, include_file_paths="file")


def newest_of_settings(trials: pl.LazyFrame, *also: str) -> pl.LazyFrame:
    """The trial of each setting that started last, in the order in which they started.

    ``also`` names columns that tell settings apart beside :data:`SETTING`.
    """
    import polars as pl

    machine = pl.when(pl.col("kind") != "quality").then("machine")
    ordered = trials.sort("started", maintain_order=True).with_row_index("place")
    # Ordering the few that are left is far quicker than to keep the order of all.
    return ordered.unique([*map(pl.col, (*SETTING, *also)), machine], keep="last").sort("place").drop("place")


def read_newest(
    results: Path, schemas: Mapping[str, Mapping[str, Any]], **only: str | Sequence[str]
) -> dict[str, pl.DataFrame]:
    """Tables of the newest trial of each setting; ``only`` keeps trials with such values (``suite="smoke"``).

    The trials that count are found in the columns that tell them apart; all else is read of those trials alone.
    """
    import polars as pl

    wanted = [pl.col(c).is_in([v] if isinstance(v, str) else list(v)) for c, v in only.items() if v]
    columns = {**dict.fromkeys((*SETTING, *only, "trial_id", "machine", "started"), pl.String), "seed": pl.Int64}
    chosen = newest_of_settings(scan_table(results, "trials", columns).filter(*wanted)).collect()
    folder = pl.col("file").str.replace("/[^/]*$", "").alias("folder")  # the same for all tables of a trial
    keys = chosen.select("trial_id", folder)
    tables = {}
    for table, schema in schemas.items():
        rows = scan_table(results, table, schema).filter(pl.col("trial_id").is_in(keys["trial_id"].implode())).collect()
        tables[table] = keys.join(rows.with_columns(folder), on=["trial_id", "folder"], maintain_order="left_right")
    return tables


def recorded_values(results: Path, column: str) -> list[str]:
    """The values of one of the trials' columns of text, sorted."""
    import polars as pl

    return scan_table(results, "trials", {column: pl.String}).collect()[column].unique().drop_nulls().sort().to_list()


def settled_trials(results: Path) -> set[str]:
    """Ids of trials that need not run again."""
    import polars as pl

    try:
        trials = scan_table(results, "trials", dict.fromkeys(("trial_id", "status", "started"), pl.String))
    except EnvironmentFailed:
        return set()
    rows = trials.sort("started", maintain_order=True).select("trial_id", pl.col("status").is_in(SETTLED)).collect()
    # Of an id that comes twice a dict keeps the last, in half the time that polars' unique takes for a million ids.
    newest = dict(zip(rows["trial_id"].to_list(), rows["status"].to_list(), strict=True))
    return {trial_id for trial_id, settled in newest.items() if settled}
