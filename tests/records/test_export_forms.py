"""The forms of `zoo export`, each read by the program it is meant for."""

import csv
import io
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from harness.errors import EnvironmentFailed, UsageError
from harness.records.export import FORMS, find_form, read_records
from harness.records.export.lm_eval_form import merge
from harness.records.schema import FAILED, MeasurementRow, TrialRecord
from harness.records.store import RunFolder

QUICK = Path(__file__).resolve().parents[2] / "results" / "quick"
NOTED = {
    "machine": "box1",
    "machine_label": "Some CPU",
    "git": {"commit": "abc", "dirty": True},
    "versions": {"python": "3.11.7"},
    "busy": None,
}


def record(kind, method, target, figures=(), samples=(), **other):
    """A stored trial; ``other`` are fields of the trial, of the record, or ``machine``."""
    outer = {k: other.pop(k) for k in ("status", "reason", "started") if k in other}
    noted = {**NOTED, "machine": other.pop("machine", "box1")}
    trial = {
        "trial_id": f"{kind}-{method}-{target}",
        "kind": kind,
        "method_kind": "speculative",
        "method": method,
        "baseline": "ar",
        "model": "m",
        "target": target,
        "dtype": None,
        "device": "cpu",
        "options": {},
        "threads": 1,
        "seed": 0,
        "suite": "unit",
        "reproduce": "zoo run",
        **other,
    }
    rows = [MeasurementRow(**figure) for figure in figures]
    raw = [{"side": side, "unit": i, "name": name, "value": v} for i, (side, name, v) in enumerate(samples)]
    fields = {"status": "ok", "started": "2026-01-01", **outer}
    return TrialRecord(trial=trial, environment=noted, measurements=rows, samples=raw, **fields)


RATIO = {"metric": "speedup_total", "value": 1.5, "low": 1.4, "high": 1.6, "n": 4}
TIMES = [0.25, 0.5, 0.3, 0.35]
WALL = [("candidate", "total_s", t) for t in TIMES] + [("baseline", "total_s", 9.0), ("candidate", "ttft_s", 0.01)]
BROKEN = record("cost", "medusa", "chat", [{**RATIO, "value": 77.0}], WALL, status=FAILED, reason="it broke")


@pytest.fixture
def store(tmp_path):
    """Stores trials in one run and returns the results folder."""

    def put(*records, run="run1"):
        folder = RunFolder.create(tmp_path / "results", run, {})
        for one in records:
            folder.store(one)
        return tmp_path / "results"

    return put


def text(form, results, **choice):
    """The one document of a form."""
    (document,) = FORMS[form].make(read_records(results, **choice))
    return document.text


def data(form, results, **choice):
    """The same, read as JSON."""
    return json.loads(text(form, results, **choice))


def compare(*arguments, folder):
    """Runs the installed ``pytest-benchmark compare``."""
    command = [str(Path(sys.executable).with_name("pytest-benchmark")), "compare", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_benchmarks_are_the_candidates_raw_times(store):
    calls = [("candidate", "attend.wall_s", 0.1), ("candidate", "attend.wall_s", 0.2), ("candidate", "mix.wall_s", 3.0)]
    ratio = {**RATIO, "metric": "speedup", "phase": "attend"}
    workload = record("workload", "dualkv", "all", [ratio], calls, method_kind="kernel")
    document = data("pytest-benchmark", store(record("cost", "lookup", "chat", [RATIO], WALL), workload, BROKEN))
    entries = {entry["name"]: entry for entry in document["benchmarks"]}
    assert set(entries) == {"chat[lookup]", "attend[dualkv]", "mix[dualkv]"}
    chat = entries["chat[lookup]"]
    assert chat["stats"]["data"] == TIMES and chat["stats"]["iterations"] == 1 and chat["stats"]["rounds"] == 4
    assert chat["stats"]["mean"] == statistics.mean(TIMES) and chat["stats"]["stddev"] == statistics.stdev(TIMES)
    assert chat["extra_info"]["speedup_total"] == {"value": 1.5, "low": 1.4, "high": 1.6, "n": 4}
    assert chat["extra_info"]["baseline"] == "ar" and chat["extra_info"]["commit"] == "abc"
    assert (chat["group"], entries["attend[dualkv]"]["group"]) == ("m chat", "m kernel attend")
    assert entries["attend[dualkv]"]["extra_info"]["speedup"]["value"] == 1.5
    assert "speedup" not in entries["mix[dualkv]"]["extra_info"]
    assert document["machine_info"]["cpu"]["brand_raw"] == "Some CPU"
    assert document["commit_info"]["id"] == "abc" and document["commit_info"]["dirty"] is True


def test_the_fields_are_those_that_pytest_benchmark_writes(store, tmp_path):
    (tmp_path / "test_one.py").write_text("def test_one(benchmark):\n    benchmark.pedantic(int, rounds=2)\n")
    command = [sys.executable, "-m", "pytest", "-q", "--benchmark-json=own.json", "test_one.py"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=True)
    own = json.loads((tmp_path / "own.json").read_text())
    ours = data("pytest-benchmark", store(record("cost", "lookup", "chat", [RATIO], WALL)))
    assert set(own) == set(ours) and set(own["commit_info"]) == set(ours["commit_info"])
    assert set(own["benchmarks"][0]) == set(ours["benchmarks"][0])
    assert set(own["benchmarks"][0]["stats"]) == set(ours["benchmarks"][0]["stats"])


def test_pytest_benchmark_opens_what_is_exported(store, tmp_path):
    faster = [(side, name, value / 2) for side, name, value in WALL]
    store(record("cost", "lookup", "chat", [RATIO], WALL), record("cost", "recycle", "chat", [RATIO], WALL), run="old")
    later = record("cost", "lookup", "chat", [RATIO], faster, started="2026-01-02", trial_id="x", machine="box1")
    results = store(later, run="new")
    for file, run in (("1.json", "old"), ("2.json", "new")):  # compared in the order of their names
        (tmp_path / file).write_text(text("pytest-benchmark", results, run=run))
    alone = compare("1.json", folder=tmp_path)
    assert alone.returncode == 0 and "Failed to load" not in alone.stderr
    assert "benchmark 'm chat': 2 tests" in alone.stdout and "350.0000 (1.0)" in alone.stdout
    both = compare("1.json", "2.json", "--between=min", folder=tmp_path)
    assert both.returncode == 0 and "-50.0%" in both.stdout


def test_one_sample_is_enough_and_none_is_said(store):
    some = record("cost", "lookup", "chat", [RATIO], WALL[:1])
    records = read_records(store(some, record("cost", "bare", "chat", [RATIO])))
    (document,) = FORMS["pytest-benchmark"].make(records)
    (entry,) = json.loads(document.text)["benchmarks"]
    assert entry["stats"]["median"] == 0.25 and entry["stats"]["stddev"] == 0
    assert records.notes == ["no raw times are kept of bare on chat; left out"]


def test_settings_and_machines_that_differ_are_named(store):
    trials = [
        record("cost", "lookup", "chat", [RATIO], WALL, trial_id=f"t{i}", options={"decode": {"count": c}}, machine=m)
        for i, (c, m) in enumerate([(2, "box1"), (3, "box1"), (2, "box2")])
    ]
    document = data("pytest-benchmark", store(*trials))
    assert [entry["name"] for entry in document["benchmarks"]] == [
        "chat[lookup,machine=box1,decode.count=2]",
        "chat[lookup,machine=box1,decode.count=3]",
        "chat[lookup,machine=box2,decode.count=2]",
    ]
    assert {entry["group"] for entry in document["benchmarks"]} == {"m chat on box1", "m chat on box2"}
    assert document["machine_info"]["node"] == "box1; box2"


def test_of_one_setting_the_newest_counts_even_where_it_failed(store):
    old = [record("cost", m, "chat", [{**RATIO, "value": 1.1}], WALL, trial_id=f"{m}0") for m in ("lookup", "other")]
    new = record("cost", "lookup", "chat", [{**RATIO, "value": 1.2}], WALL, started="2026-01-02")
    red = record("cost", "other", "chat", started="2026-01-03", status=FAILED, reason="it broke")
    results = store(*old, new, red)
    assert data("bencher", results) == {
        "m/chat[lookup]": {"speedup-total": {"value": 1.2, "lower_value": 1.4, "upper_value": 1.6}}
    }


def test_bencher_metrics(store):
    quality = [
        {"metric": "exact_match", "value": 0.5, "phase": "sum", "low": 0.25, "high": 0.75, "source": "lm-eval"},
        {"metric": "exact_match", "value": 0.25, "phase": "sum", "source": "lm-eval"},
    ]
    cost = [
        {"metric": "energy_per_token_decode", "value": 0.5, "phase": "decode", "source": "model"},
        {"metric": "kv_bytes_held", "value": None, "source": "none: no cache"},
    ]
    probe = [{"metric": "phase_seconds", "value": v, "phase": p} for v, p in ((1.0, "sample"), (2.0, "train"))]
    document = data(
        "bencher",
        store(
            record("quality", "lookup", "sum", quality),
            record("cost", "lookup", "chat", cost),
            record("probe", "lookup", "all", [*probe, {"metric": "fertility", "value": 1.5, "source": "count"}]),
            BROKEN,
        ),
    )
    assert document == {
        "m/sum[lookup]": {
            "exact-match": {"value": 0.5, "lower_value": 0.25, "upper_value": 0.75},
            "exact-match-2": {"value": 0.25},
        },
        "m/chat[lookup]": {"energy-per-token-decode-model": {"value": 0.5}},
        "m/probe.sample[lookup]": {"phase-seconds": {"value": 1.0}},
        "m/probe.train[lookup]": {"phase-seconds": {"value": 2.0}},
        "m/probe[lookup]": {"fertility": {"value": 1.5}},
    }


def test_csv_has_a_row_a_figure_and_failed_trials_without_one(store):
    figures = [RATIO, {**RATIO, "metric": "ttft_p50", "value": 12.5}]
    awkward = 'kv,"quoted"\nline'
    results = store(record("cost", "lookup", "chat", figures, WALL), BROKEN, record("cost", "odd", awkward, [RATIO]))
    rows = list(csv.DictReader(io.StringIO(text("csv", results))))
    assert [(r["method"], r["metric"], r["value"], r["status"]) for r in rows] == [
        ("lookup", "speedup_total", "1.5", "ok"),
        ("lookup", "ttft_p50", "12.5", "ok"),
        ("medusa", "", "", "failed"),
        ("odd", "speedup_total", "1.5", "ok"),
    ]
    assert rows[1]["unit"] == "ms" and rows[0]["machine"] == "box1" and rows[2]["reason"] == "it broke"
    assert rows[3]["target"] == awkward


def lm_eval_file(folder, task, value, model="m", **config):
    """What lm-eval's own tracker writes for one task."""
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(folder))
    arguments = {"pretrained": model, "method": "lookup"}
    tracker.general_config_tracker.log_experiment_args("CUSTOM", arguments, None, None, False)
    results = {
        "results": {task: {"alias": task, "acc,none": value, "acc_stderr,none": 0.125}},
        "group_subtasks": {},
        "configs": {task: {"task": task}},
        "versions": {task: 1.0},
        "n-shot": {task: 0},
        "higher_is_better": {task: {"acc": True}},
        "n-samples": {task: {"original": 8, "effective": 4}},
        "config": {"model": "ZooLM", "model_args": arguments, **config},
        "date": 1.0,
    }
    tracker.save_results_aggregated(results=results)


@pytest.fixture
def evaluated(tmp_path):
    """Stores quality trials with lm-eval's file in each one's folder, in this order, and returns the results folder."""

    def put(*wanted):
        folder = RunFolder.create(tmp_path / "results", "run1", {})
        for i, (method, task, value, options) in enumerate(wanted):
            work = folder.scratch()
            if value is not None:
                lm_eval_file(work / "lm-eval", task, value, **options)
            trial_id = f"{method}-{task}-{i}"
            folder.store(record("quality", method, task, trial_id=trial_id, options=options), work)
        folder.close()
        return tmp_path / "results"

    return put


def test_lm_eval_documents_are_merged_by_method_and_printed_by_lm_eval(evaluated):
    from lm_eval.utils import make_table

    results = evaluated(
        ("kv@keep=0.5", "sum", 0.75, {}), ("kv@keep=0.5", "copy", 0.5, {}), ("kv@keep=1", "sum", 1.0, {})
    )
    records = read_records(results)
    documents = {d.name.split("/")[0]: json.loads(d.text) for d in FORMS["lm-eval"].make(records)}
    assert set(documents) == {"m+kv@keep=0.5", "m+kv@keep=1"} and records.notes == []
    half = documents["m+kv@keep=0.5"]
    single = json.loads(next(results.rglob("lm-eval/m/results_*.json")).read_text())
    assert set(half) == set(single)
    for name in ("results", "configs", "versions", "n-shot", "higher_is_better", "n-samples"):
        assert list(half[name]) == ["sum", "copy"]
    assert half["config"]["model_args"] == {"pretrained": "m", "method": "kv@keep=0.5"}
    assert half["model_name"] == half["model_name_sanitized"] == "m+kv@keep=0.5"
    table = make_table(half)
    assert re.search(r"\|sum +\|.*\|acc +\|.*0\.75.*0\.125", table) and re.search(r"\|copy +\|.*0\.5", table)


def test_file_names_are_lm_evals(evaluated):
    from lm_eval.utils import get_file_datetime, get_results_filenames

    results = evaluated(("kv", "sum", 0.75, {}), ("kv", "copy", 0.5, {}))
    (document,) = FORMS["lm-eval"].make(read_records(results))
    stamps = sorted(get_file_datetime(file.name) for file in results.rglob("results_*.json"))
    assert get_results_filenames([document.name]) == [document.name]
    assert get_file_datetime(document.name) == stamps[-1]


def test_settings_of_an_evaluation_are_not_mixed(evaluated):
    wanted = [("kv", "sum", 0.75, {"limit": 4}), ("kv", "copy", 0.5, {"limit": 4}), ("kv", "sum", 0.25, {"limit": 8})]
    documents = [json.loads(d.text) for d in FORMS["lm-eval"].make(read_records(evaluated(*wanted)))]
    found = {d["model_name"]: (list(d["results"]), d["config"]["limit"]) for d in documents}
    assert found == {"m+kv,limit=4": (["sum", "copy"], 4), "m+kv,limit=8": (["sum"], 8)}


def test_a_file_that_is_not_kept_is_said_and_a_spoilt_one_is_an_error(evaluated):
    results = evaluated(("kv", "sum", 0.75, {}), ("kv", "copy", None, {}))
    records = read_records(results)
    (document,) = FORMS["lm-eval"].make(records)
    assert list(json.loads(document.text)["results"]) == ["sum"]
    assert records.notes == ["lm-eval's results file is not kept and so left out: kv on copy"]
    next(results.rglob("results_*.json")).write_text('{"results": ')
    with pytest.raises(EnvironmentFailed, match=r"is not lm-eval's results file.*run its trial again"):
        FORMS["lm-eval"].make(read_records(results))


def test_run_times_are_added_and_groups_united():
    parts = [
        {"results": {t: {}}, "groups": {"g" + t: {}}, "total_evaluation_time_seconds": s} for t, s in (("a", "1"),)
    ]
    parts.append({"results": {"b": {}}, "total_evaluation_time_seconds": "2.5", "date": 7})
    merged = merge(parts)
    assert merged["groups"] == {"ga": {}} and list(merged["results"]) == ["a", "b"]
    assert (merged["total_evaluation_time_seconds"], merged["date"]) == ("3.5", 7)


@pytest.mark.parametrize(("form", "kind"), [("pytest-benchmark", "quality"), ("lm-eval", "cost"), ("bencher", "")])
def test_nothing_left_is_one_line(store, form, kind):
    results = store(BROKEN, *([record(kind, "kv", "sum", [RATIO])] if kind else []))
    with pytest.raises(EnvironmentFailed, match=r"no finished trial of kind .*1 cost failed.*nothing was written"):
        FORMS[form].make(read_records(results))


def test_suites_and_runs_are_chosen_by_name(store):
    store(record("cost", "lookup", "chat", [RATIO], suite="smoke"), run="a")
    results = store(record("cost", "lookup", "chat", [{**RATIO, "value": 2.0}], started="2026-02-01"), run="b")
    value = {
        run: data("bencher", results, run=run)["m/chat[lookup]"]["speedup-total"]["value"] for run in ("", "a", "b")
    }
    assert value == {"": 2.0, "a": 1.5, "b": 2.0}
    assert data("bencher", results / "runs" / "a", run="a") == data("bencher", results, run="a")
    with pytest.raises(UsageError, match="unknown suite among the records 'unti'; did you mean 'unit'"):
        read_records(results, suite="unti")
    with pytest.raises(UsageError, match="unknown run 'c'; known: a, b"):
        read_records(results, run="c")


def test_a_form_has_two_spellings_and_a_wrong_one_a_hint():
    assert find_form("lm_eval") is FORMS["lm-eval"]
    with pytest.raises(UsageError, match="unknown format 'benchr'; did you mean 'bencher'"):
        find_form("benchr")


def test_the_reference_run_can_be_exported(tmp_path):
    document = data("pytest-benchmark", QUICK)
    table = pl.read_csv(io.StringIO(text("csv", QUICK)), infer_schema_length=None)
    paired = table.filter(pl.col("metric").is_in(["speedup_total", "speedup"]))
    ratios = [e["extra_info"].get("speedup_total") or e["extra_info"].get("speedup") for e in document["benchmarks"]]
    assert sorted(r["value"] for r in ratios if r) == pytest.approx(sorted(paired["value"]))
    (tmp_path / "quick.json").write_text(text("pytest-benchmark", QUICK))
    opened = compare("quick.json", folder=tmp_path)
    assert opened.returncode == 0 and "token_recycling" in opened.stdout
    measured = table.filter(pl.col("value").is_not_null())
    assert sum(len(measures) for measures in data("bencher", QUICK).values()) == len(measured)
