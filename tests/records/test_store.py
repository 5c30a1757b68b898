"""The store: nothing half-written, compaction loses nothing, a run is held by one process."""

import multiprocessing
from pathlib import Path

import polars as pl
import pytest

from harness.errors import EnvironmentFailed, UsageError
from harness.records.schema import FAILED, OK, MeasurementRow, TrialRecord
from harness.records.store import (
    RunFolder,
    read_newest,
    read_results,
    recorded_values,
    run_folders,
    scan_table,
    settled_trials,
)

VALUES = {"measurements": {"trial_id": pl.String, "value": pl.Float64}}


def record(trial_id, status=OK, value=1.0, started="2026-01-01", **changes):
    trial = {
        "trial_id": trial_id,
        "kind": "quality",
        "method_kind": "pruning",
        "method": "kv_streaming",
        "baseline": "kv_full",
        "model": "tiny-random",
        "target": "t",
        "dtype": None,
        "device": "cpu",
        "options": {"limit": 3},
        "threads": 1,
        "seed": 0,
        "suite": "unit",
        **changes,
    }
    rows = [MeasurementRow(metric="acc", value=value, low=value - 0.1, high=value + 0.1, n=10, phase="t")]
    samples = [{"side": "document", "unit": i, "name": "acc", "value": value} for i in range(3)]
    return TrialRecord(trial=trial, status=status, started=started, measurements=rows, samples=samples)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path, "20260101-unit", {"suite": {}, "scope": {}})


def test_what_is_stored_is_read_back(run, tmp_path):
    run.store(record("aaa", value=0.5))
    tables = read_results(tmp_path)
    assert tables["trials"]["trial_id"].to_list() == ["aaa"]
    assert tables["measurements"].row(0, named=True)["value"] == 0.5
    assert tables["measurements"]["unit"].to_list() == ["share"]
    assert len(tables["samples"]) == 3


def test_compaction_loses_nothing_and_later_trials_join(run, tmp_path):
    run.store(record("aaa"))
    before = read_results(tmp_path)
    run.close()
    after = read_results(tmp_path)
    assert all(before[t].equals(after[t]) for t in before)
    assert run.plan["closed"] and not list(run.path.glob("aaa/*.parquet"))
    run.store(record("bbb"))
    assert set(read_results(tmp_path)["trials"]["trial_id"]) == {"aaa", "bbb"}


def test_a_trial_stored_again_replaces_itself_also_after_compaction(run, tmp_path):
    run.store(record("aaa", value=0.1))
    run.close()
    run.store(record("aaa", value=0.9))
    assert read_results(tmp_path)["measurements"]["value"].to_list() == [0.9]


def test_the_newest_of_two_runs_counts(tmp_path):
    for name, value, day in (("20260101-a", 0.1, "2026-01-01"), ("20260102-b", 0.2, "2026-01-02")):
        RunFolder.create(tmp_path, name, {}).store(record("aaa", value=value, started=day))
    assert read_results(tmp_path)["measurements"]["value"].to_list() == [0.2]
    assert len(run_folders(tmp_path)) == 2


def test_what_a_killed_trial_leaves_is_not_read(run, tmp_path):
    run.store(record("aaa"))
    work = run.scratch()
    pl.DataFrame({"trial_id": ["half"]}).write_parquet(work / "measurements.parquet")
    (work / "samples.parquet").write_bytes(b"PAR1 cut")
    assert set(read_results(tmp_path)["trials"]["trial_id"]) == {"aaa"}
    run.close()
    assert not work.exists()


def test_failed_trials_are_not_settled(run, tmp_path):
    run.store(record("aaa"))
    run.store(record("bbb", status=FAILED))
    assert settled_trials(tmp_path) == {"aaa"}
    assert settled_trials(tmp_path / "nothing") == set()


def test_the_newest_state_of_a_trial_settles_it(tmp_path):
    for name, status, day in (("20260101-a", FAILED, "2026-01-03"), ("20260102-b", OK, "2026-01-02")):
        RunFolder.create(tmp_path, name, {}).store(record("aaa", status=status, started=day))
    assert settled_trials(tmp_path) == set()
    RunFolder.create(tmp_path, "20260103-c", {}).store(record("aaa", started="2026-01-04"))
    assert settled_trials(tmp_path) == {"aaa"}


def values_of_newest(results, **only):
    return read_newest(results, VALUES, **only)["measurements"]["value"].to_list()


def test_of_a_setting_the_newest_trial_is_read(tmp_path):
    for name, value in (("20260101-a", 0.1), ("20260102-b", 0.2)):
        run = RunFolder.create(tmp_path, name, {})
        run.store(record(f"id{value}", value=value, started=name))
        run.store(record(f"other{value}", value=value + 0.5, started=name, options={"limit": 4}))
        run.close()
    assert sorted(values_of_newest(tmp_path)) == [0.2, 0.7]
    assert sorted(values_of_newest(tmp_path / "runs/20260101-a")) == [0.1, 0.6]


@pytest.mark.parametrize(("kind", "values"), [("cost", [0.1, 0.2]), ("quality", [0.2])])
def test_a_machine_tells_costs_apart_and_qualities_not(run, tmp_path, kind, values):
    for machine, value in (("m1", 0.1), ("m2", 0.2)):
        trial = record(machine, value=value, started=machine, kind=kind)
        trial.environment["machine"] = machine
        run.store(trial)
    assert values_of_newest(tmp_path) == values


def test_only_the_trials_asked_for_are_read(run, tmp_path):
    run.store(record("aaa", value=0.1, suite="one"))
    run.store(record("bbb", value=0.2, started="2026-01-02", suite="two"))
    assert values_of_newest(tmp_path, suite="one") == [0.1]
    assert values_of_newest(tmp_path, suite="two", method_kind="pruning") == [0.2]
    assert values_of_newest(tmp_path, method_kind="kernel") == []
    assert recorded_values(tmp_path, "suite") == ["one", "two"]


def test_a_trial_that_ran_twice_has_the_figures_of_its_last_run_alone(run, tmp_path):
    run.store(record("aaa", value=0.1))
    run.close()
    run.store(record("aaa", value=0.9))
    assert values_of_newest(tmp_path) == [0.9]
    run.close()
    assert values_of_newest(tmp_path) == [0.9]


def test_a_closed_run_is_opened_again_by_what_is_stored_in_it(run):
    run.store(record("aaa"))
    run.close()
    assert run.closed
    run.store(record("bbb"))
    assert not run.closed and not run.plan["closed"]
    run.close()
    assert run.closed and len(run.files("trials")) == 1


def test_what_a_killed_trial_leaves_is_not_scanned(run, tmp_path):
    run.store(record("aaa", value=0.5))
    (run.scratch() / "trials.parquet").write_bytes(b"PAR1 cut")
    (run.scratch() / "measurements.parquet").write_bytes(b"PAR1 cut")
    assert settled_trials(tmp_path) == {"aaa"} and values_of_newest(tmp_path) == [0.5]


def test_a_column_that_older_records_lack_is_null_and_unknown_ones_are_left(run, tmp_path):
    run.store(record("aaa"))
    run.close()
    trials = run.path / "trials.parquet"
    pl.read_parquet(trials).drop("environment").with_columns(later=1).write_parquet(trials)
    newer = RunFolder.create(tmp_path, "20260102-unit", {})
    newer.store(record("bbb", dtype="float32"))
    schema = dict.fromkeys(("trial_id", "dtype", "environment"), pl.String)
    rows = scan_table(tmp_path, "trials", schema).drop("file").collect().rows()
    assert rows == [("aaa", None, None), ("bbb", "float32", "{}")]


def test_only_the_columns_asked_for_are_read(run, tmp_path):
    run.store(record("aaa"))
    run.close()
    (run.path / "measurements.parquet").write_bytes(b"not read")
    assert settled_trials(tmp_path) == {"aaa"}
    plan = scan_table(tmp_path, "trials", {"trial_id": pl.String, "reason": pl.String}).select("trial_id").explain()
    assert "PROJECT 1/" in plan


def hold(path, ready, leave):
    with RunFolder(Path(path)).locked():
        ready.set()
        leave.wait(30)


def test_a_run_is_held_by_one_process(run):
    spawn = multiprocessing.get_context("fork")
    ready, leave = spawn.Event(), spawn.Event()
    process = spawn.Process(target=hold, args=(str(run.path), ready, leave))
    process.start()
    assert ready.wait(30)
    with pytest.raises(UsageError, match="in progress in another process"), run.locked():
        pass
    leave.set()
    process.join()
    with run.locked():
        pass


def test_no_records_is_one_line(tmp_path):
    with pytest.raises(EnvironmentFailed, match="no records under"):
        read_results(tmp_path)


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("x")
    with pytest.raises(EnvironmentFailed, match="cannot write results"):
        RunFolder.create(tmp_path, "r", {})
