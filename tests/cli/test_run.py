"""`zoo run` up to the first process: plans, narrowing a suite, decode workloads; `zoo train` and `zoo bench`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.run.suite import parse_decode

ROOT = Path(__file__).parents[2]


def planned(zoo, tmp_path, *arguments):
    code, out, err = zoo("run", *arguments, "--dry-run", "--json", "--output_path", str(tmp_path / "r"))
    assert code == 0, err
    return json.loads(out)


def test_a_dry_run_lists_trials_and_writes_nothing(zoo, tmp_path):
    plan = planned(zoo, tmp_path, "smoke")
    methods = {t["method"].split("@")[0] for t in plan["trials"]}
    exemplars = {"kv_full", "kv_streaming", "kv_snapkv", "ar", "prompt_lookup", "token_recycling", "dualkv"}
    assert methods == exemplars | {"native", "byte", "bpe", "stochastok", "grpo", "balanced_agg"}
    assert not (tmp_path / "r").exists()
    assert planned(zoo, tmp_path, "smoke") == plan


def test_quality_only_and_cost_only_split_a_suite(zoo, tmp_path):
    kinds = lambda *a: {t["kind"] for t in planned(zoo, tmp_path, "smoke", *a)["trials"]}  # noqa: E731
    assert kinds("--quality-only") == {"quality", "probe"}
    assert kinds("--cost-only") == {"cost", "workload", "probe"}


def test_a_grid_and_its_tasks(zoo, tmp_path):
    words = ("--method", "kv_snapkv@keep_ratio=[0.25,0.5]", "--tasks", "zoo_kvc8,zoo_kvc16", "--model", "tiny-random")
    trials = planned(zoo, tmp_path, *words)["trials"]
    assert {(t["method"], t["target"]) for t in trials} == {
        (f"kv_snapkv@keep_ratio={r}", task) for r in (0.25, 0.5) for task in ("zoo_kvc8", "zoo_kvc16")
    }


def test_an_option_given_again_adds_to_the_list(zoo, tmp_path):
    words = ("--method", "ar", "--tasks", "zoo_kvc8", "--tasks", "zoo_kvc16,zoo_add50", "--model", "tiny-random")
    again = ("--decode", "chatx8n1", "--decode", "copyx8n1")
    trials = planned(zoo, tmp_path, *words, *again)["trials"]
    assert {t["target"] for t in trials} == {"zoo_kvc8", "zoo_kvc16", "zoo_add50", "chatx8n1", "copyx8n1"}


def test_options_narrow_a_suite(zoo, tmp_path):
    trials = planned(zoo, tmp_path, "smoke", "--model", "tiny-random", "--quality-only")["trials"]
    assert {t["model"] for t in trials} == {"tiny-random"}


@pytest.mark.parametrize("text", ["chat:", "512", "chat x 3", "prose:12y"])
def test_a_malformed_decode_workload(text):
    with pytest.raises(UsageError, match="cannot read decode workload"):
        parse_decode(text)


def test_suite_and_method_exclude_each_other_in_one_line(zoo, tmp_path):
    code, _, err = zoo("run", "nosuch", "--output_path", str(tmp_path))
    assert code == 2 and "unknown suite 'nosuch'" in err


def test_nothing_to_resume(zoo, tmp_path):
    code, _, err = zoo("run", "--resume", "--output_path", str(tmp_path))
    assert code == 2 and "nothing to resume" in err


def test_train_makes_an_artifact_once_and_finds_it_again(zoo):
    words = ("train", "bpe@vocab_size=512", "--model", "tiny-random", "--json")
    first, second = json.loads(zoo(*words)[1]), json.loads(zoo(*words)[1])
    assert first["made_now"] and not second["made_now"]
    assert first["path"] == second["path"] and first["seconds"] == second["seconds"]


def test_train_refuses_what_needs_no_training(zoo):
    code, _, err = zoo("train", "kv_streaming", "--model", "tiny-random")
    assert code == 2 and "needs no artifact" in err


def test_bench_names_unknown_methods(zoo):
    code, _, err = zoo("bench", "dualkw")
    assert code == 2 and "did you mean 'dualkv'" in err


def test_bench_refuses_parameters_out_of_range(zoo):
    code, _, err = zoo("bench", "hisa@page=0")
    assert code == 2 and "page=0" in err and err.count("\n") == 1


def test_bench_names_unknown_kinds(zoo):
    code, _, err = zoo("bench", "--kind", "kernels")
    assert code == 2 and "did you mean 'kernel'" in err


def test_the_benchmarks_can_be_collected():
    """What `zoo bench` runs lies outside the tests, so nothing else would notice that it no longer loads."""
    command = [sys.executable, "-m", "pytest", "ci/bench", "--collect-only", "-q", "--import-mode=importlib"]
    command += ["-p", "no:cacheprovider", "--zoo-methods=dualkv"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "test_workloads.py: 1" in done.stdout, done.stdout


@pytest.mark.slow
def test_bench_prints_a_ratio_with_its_interval(zoo, capfd):
    code, out, _ = zoo("bench", "dualkv", "--json")
    document = json.loads(out or capfd.readouterr().out)
    (entry,) = document["benchmarks"]
    ratios = [f["speedup"] for f in entry["extra_info"].values()]
    assert code == 0 and ratios and all(r["low"] <= r["value"] <= r["high"] for r in ratios)
