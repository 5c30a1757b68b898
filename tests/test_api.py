"""`import harness`: light, and the verbs as functions that return polars frames."""

import subprocess
import sys

import pytest

import harness
from harness.errors import UsageError
from harness.run.plan import Scope

DECODE = [{"prompts": "chat", "prompt_tokens": 24, "new_tokens": 8, "count": 2}]
ENTRY = {"models": ["tiny-random"], "tasks": ["zoo_kvc8"], "limit": 4}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A results folder with a quality and a cost trial of three stacks, one of which is refused, and its frame."""
    cache = tmp_path_factory.mktemp("cache")
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(cache))
        methods = ["kv_full", "kv_streaming@keep_ratio=0.5", "kv_full+kv_streaming"]
        yield results, harness.run_methods(methods, results=results, decode=DECODE, **ENTRY)


def test_importing_is_light():
    code = "import sys, harness; print(sorted({'torch', 'polars', 'numpy', 'typer'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_a_run_gives_every_trial_and_its_figures(measured):
    _, frame = measured
    assert frame["trial_id"].n_unique() == 6
    by_method = dict(frame.group_by("method").agg("status").iter_rows())
    assert set(by_method["kv_streaming@keep_ratio=0.5"]) == {"ok"}
    speed = frame.filter((frame["metric"] == "speedup_decode") & (frame["method"] != "kv_full"))
    assert speed["value"].item() > 0 and speed["baseline"].item() == "kv_full"


def test_a_trial_without_figures_is_a_row_with_its_reason(measured):
    _, frame = measured
    refused = frame.filter(frame["method"] == "kv_full+kv_streaming")
    assert set(refused["status"]) == {"refused"} and refused["metric"].null_count() == len(refused) == 2
    assert all("both replace the cache" in reason for reason in refused["reason"])


def test_what_is_recorded_is_not_run_again_but_returned(measured):
    results, frame = measured
    again = harness.run_methods(["kv_full"], Scope(cost=False), results, **ENTRY)
    assert len(list((results / "runs").iterdir())) == 1
    quality = frame.filter((frame["method"] == "kv_full") & (frame["kind"] == "quality"))
    assert set(again["trial_id"]) == set(quality["trial_id"])


def test_the_leaderboard_is_one_row_a_method_and_workload(measured):
    results, _ = measured
    frame = harness.leaderboard("pruning", results)
    full = frame.filter(frame["method"] == "kv_full").row(0, named=True)
    half = frame.filter(frame["method"] == "kv_streaming@keep_ratio=0.5").row(0, named=True)
    assert full["kv_kept_fraction"] == 1.0 > half["kv_kept_fraction"]
    assert half["speedup_decode low"] < half["speedup_decode"] < half["speedup_decode high"]
    assert half["zoo_kvc8 acc delta"] is not None and full["zoo_kvc8 acc delta"] is None
    ranked = harness.leaderboard("pruning", results, sort="kv_bytes_held")
    held = ranked["kv_bytes_held"].drop_nulls().to_list()
    assert held == sorted(held)


def test_unknown_names_of_a_leaderboard_are_answered(measured):
    results, _ = measured
    with pytest.raises(UsageError, match="unknown kind among the records 'prunning'; did you mean 'pruning'"):
        harness.leaderboard("prunning", results)
    with pytest.raises(UsageError, match="did you mean 'speedup_decode'"):
        harness.leaderboard("pruning", results, sort="speedup_decod")


def test_a_suite_may_be_given_as_a_file_or_as_tables(measured, tmp_path):
    results, _ = measured
    entry = "{methods: [kv_full], models: [tiny-random], tasks: [zoo_kvc8], limit: 4}"
    (tmp_path / "own.yaml").write_text(f"name: own\nentries: [{entry}]\n", encoding="utf-8")
    from_file = harness.run_suite(str(tmp_path / "own.yaml"), results=results)
    tables = {"name": "own", "entries": [{"methods": ["kv_full"], **ENTRY}]}
    assert from_file.equals(harness.run_suite(tables, results=results))
    with pytest.raises(UsageError, match="did you mean 'tasks'"):
        harness.run_methods(["kv_full"], results=results, task=["zoo_kvc8"])


def test_the_cards_are_a_frame():
    frame = harness.list_methods("pruning")
    assert "kv_full" in set(frame["id"]) and set(frame["kind"]) == {"pruning"}
    assert set(frame["id"]) < set(harness.list_methods()["id"])
    with pytest.raises(UsageError, match="did you mean 'pruning'"):
        harness.list_methods("prune")


def test_checks_are_a_frame(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    frame = harness.check("kv_streaming@keep_ratio=0.5", device="cpu")
    assert len(frame) > 3 and set(frame["outcome"]) == {"passed"}
