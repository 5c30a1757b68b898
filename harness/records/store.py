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
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import EnvironmentFailed, UsageError
from harness.records.schema import SETTLED, TrialRecord, measurement_frame, sample_frame, trial_frame

if TYPE_CHECKING:
    import polars as pl

TABLES = ("trials", "measurements", "samples")


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
            frame = read_table(self.path, table)
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


def read_table(run: Path, table: str) -> pl.DataFrame | None:
    """A table of one run: the compacted file and the trials stored since; the newest row of a trial counts."""
    import polars as pl

    # A folder whose name starts with a dot is a trial that was cut off while it was written.
    fresh = sorted(f for f in run.glob(f"*/{table}.parquet") if not f.parent.name.startswith("."))
    frames = [pl.read_parquet(f) for f in fresh]
    compacted = run / f"{table}.parquet"
    if compacted.is_file():
        old = pl.read_parquet(compacted)
        newer = {f.parent.name for f in fresh}
        frames.insert(0, old.filter(~pl.col("trial_id").is_in(list(newer))))
    return pl.concat(frames, how="diagonal_relaxed") if frames else None


def run_folders(results: Path) -> list[RunFolder]:
    """All runs under a results folder, oldest first."""
    root = results / "runs"
    if not root.is_dir():
        return []
    return [RunFolder(p) for p in sorted(root.iterdir()) if (p / "run.json").is_file()]


def read_results(results: Path) -> dict[str, pl.DataFrame]:
    """All tables of all runs; of a trial that was run twice the newest counts. ``results`` may be one run's folder."""
    import polars as pl

    runs = (
        [RunFolder(results)]
        if (results / "trials.parquet").is_file() or (results / "run.json").is_file()
        else run_folders(results)
    )
    tables: dict[str, list[pl.DataFrame]] = {t: [] for t in TABLES}
    for run in runs:
        for table in TABLES:
            frame = read_table(run.path, table)
            if frame is not None:
                tables[table].append(frame.with_columns(pl.lit(run.path.name).alias("run")))
    if not tables["trials"]:
        raise EnvironmentFailed(f"no records under {results}; run `zoo run` first, or give --output_path")
    trials = pl.concat(tables["trials"], how="diagonal_relaxed").sort("started")
    newest = trials.unique("trial_id", keep="last", maintain_order=True)
    keys = newest.select("trial_id", "run")
    joined = {
        table: pl.concat(tables[table], how="diagonal_relaxed").join(keys, on=["trial_id", "run"], how="semi")
        for table in ("measurements", "samples")
        if tables[table]
    }
    return {"trials": newest, **joined}


def settled_trials(results: Path) -> set[str]:
    """Ids of trials that need not run again."""
    try:
        trials = read_results(results)["trials"]
    except EnvironmentFailed:
        return set()
    return set(trials.filter(trials["status"].is_in(SETTLED))["trial_id"])
