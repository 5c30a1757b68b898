"""Whole runs in processes of their own: bad trials become rows, good ones are untouched, a killed run resumes."""

import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

from harness.records.store import read_results, run_folders
from harness.run.plan import Scope
from harness.run.session import execute_plan, find_unfinished, make_plan, resume_plan
from harness.run.suite import parse_suite


def quality_suite(methods, **settings):
    entry = {"methods": methods, "models": ["tiny-random"], "tasks": ["tiny_choice"], "limit": 6}
    return parse_suite({"name": "unit", "entries": [entry], **settings}, "test")


def scope_of(task_folder):
    return Scope(cost=False, include_path=(str(task_folder),))


def test_bad_trials_become_rows_and_good_ones_finish(foreign, task_folder, tmp_path):
    methods = ["good_twin", "bad_raise", "bad_kill", "bad_hang", "bad_memory", "kv_streaming@keep_ratio=0.5"]
    suite = quality_suite(methods, trial_limit_s=20, memory_limit_gb=3.0)
    plan = make_plan(suite, scope_of(task_folder), tmp_path)
    summary = execute_plan(plan, tmp_path, lambda event: None)
    trials = read_results(tmp_path)["trials"]
    status = dict(zip(trials["method"], trials["status"], strict=True))
    reason = dict(zip(trials["method"], trials["reason"], strict=True))
    assert status == {
        "good_twin": "ok",
        "bad_raise": "failed",
        "bad_kill": "crashed",
        "bad_hang": "timeout",
        "bad_memory": "out of memory",
        "kv_streaming@keep_ratio=0.5": "ok",
    }
    assert "on purpose" in reason["bad_raise"]
    assert "SIGKILL" in reason["bad_kill"]
    assert summary.statuses["ok"] == 2
    assert run_folders(tmp_path)[0].plan["closed"]
    measured = read_results(tmp_path)["measurements"].filter(pl.col("metric") == "acc")
    assert len(measured) == 2 and measured["value"].is_finite().all()
    assert len(list(tmp_path.glob("runs/*/*/lm-eval/*/samples_tiny_choice_*.jsonl"))) == 2


def zoo_run(task_folder, results):
    command = [sys.executable, "-m", "harness.cli", "run"]
    for method in ("kv_full", "kv_streaming@keep_ratio=[0.25,0.5,0.75]"):
        command += ["--method", method]
    command += ["--model", "tiny-random", "--tasks", "tiny_choice", "--include_path", str(task_folder)]
    return [*command, "--quality-only", "--output_path", str(results), "--json"]


def settled_ids(results):
    trials = read_results(results)["trials"]
    assert set(trials["status"]) == {"ok"}
    return set(trials["trial_id"])


def test_a_run_killed_and_resumed_ends_with_the_same_trials(task_folder, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(zoo_run(task_folder, whole), check=True, capture_output=True)
    process = subprocess.Popen(zoo_run(task_folder, cut), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(cut.glob("runs/*/*/trials.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not find_unfinished(cut).plan["closed"]
    resumed = [*zoo_run(task_folder, cut)[:4], "--resume", "--output_path", str(cut), "--json"]
    subprocess.run(resumed, check=True, capture_output=True)
    assert settled_ids(cut) == settled_ids(whole)
    assert not list(cut.glob("runs/*/.trial-*"))


def test_a_resumed_plan_holds_only_what_is_missing(foreign, task_folder, tmp_path):
    suite = quality_suite(["kv_full", "good_twin"])
    plan = make_plan(suite, scope_of(task_folder), tmp_path)
    first = plan.trials[0]
    plan.trials = [first]
    execute_plan(plan, tmp_path, lambda event: None)
    folder = run_folders(tmp_path)[0]
    left = resume_plan(folder)
    assert [t["method"] for t in left.trials] == ["good_twin"]
    assert left.recorded == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--method", "kv_streming"], 2, "did you mean 'kv_streaming'"),
        (["--method", "kv_streaming@keep_ratio=2"], 2, "keep_ratio=2"),
        (["--method", "kv_streaming@kep_ratio=0.5"], 2, "did you mean 'keep_ratio'"),
        (["--method", "kv_full", "--tasks", "tiny_choise"], 2, "did you mean 'tiny_choice'"),
        (["--method", "kv_full", "--model", "tiny-randon"], 2, "did you mean 'tiny-random'"),
        (["nosuch.yaml"], 2, "nosuch.yaml"),
        (["--method", "kv_full", "--decode", "chat:"], 2, "decode workload"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(task_folder, tmp_path, arguments, code, words):
    base = [sys.executable, "-m", "harness.cli", "run", *arguments, "--include_path", str(task_folder)]
    if "--method" in arguments and "--model" not in arguments:
        base += ["--model", "tiny-random"]
    if "--tasks" not in arguments and "--decode" not in arguments and "--method" in arguments:
        base += ["--tasks", "tiny_choice", "--quality-only"]
    done = subprocess.run([*base, "--output_path", str(tmp_path / "r")], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_one_line_and_exit_code_four(task_folder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    done = subprocess.run(zoo_run(task_folder, blocked), capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "cannot write results" in done.stderr and len(done.stderr.strip().splitlines()) == 1
