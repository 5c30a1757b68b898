"""zoo check, and what is remembered of it."""

import json

import pytest

from harness.catalog.spec import MethodSpec
from harness.errors import EnvironmentFailed, Refused
from harness.kinds import checking
from harness.kinds.checking import CheckResult, check_cached, run_checks
from harness.kinds.method import Check, Method


class Promising(Method):
    """A method whose checks are given."""

    card = MethodSpec("kv_full").entry.card

    def __init__(self, *runs):
        self.runs = runs

    def checks(self, subject):
        """One check for each function."""
        return [Check(f"check {index}", run) for index, run in enumerate(self.runs)]


def hold():
    """An invariant that holds."""


def break_it():
    raise AssertionError("0.3 is more\nthan 0.1")


def crash():
    raise MemoryError("full")


def refuse():
    raise Refused("not this model")


def test_one_red_check_does_not_stop_the_others(tiny):
    results = run_checks(Promising(hold, break_it, crash, hold), tiny)
    assert [r.outcome for r in results] == ["passed", "failed", "raised", "passed"]
    assert results[1].reason == "0.3 is more than 0.1" and results[2].reason == "MemoryError: full"


def test_each_check_has_the_same_random_state(tiny):
    import torch

    drawn = []
    run_checks(Promising(*[lambda: drawn.append(float(torch.rand(())))] * 2), tiny)
    assert drawn[0] == drawn[1]


def test_no_checks_is_no_pass(tiny):
    with pytest.raises(EnvironmentFailed, match="offers no checks"):
        run_checks(Promising(), tiny)


def test_a_refused_subject_is_refused_not_red(tiny):
    with pytest.raises(Refused, match="not this model"):
        run_checks(Promising(hold, refuse), tiny)


def test_checks_that_cannot_be_made_are_red(tiny):
    method = Promising()
    method.checks = lambda subject: 1 / 0
    assert [r.passed for r in run_checks(method, tiny)] == [False]


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """A cache of its own, and outcomes that can be set; counts how often checks really run."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    state = {"runs": 0, "results": [CheckResult("a", "passed"), CheckResult("b", "failed", "why")]}

    def fake(method, subject, seed=0):
        state["runs"] += 1
        return state["results"]

    monkeypatch.setattr(checking, "run_checks", fake)
    return state


def test_results_are_remembered_for_the_same_sources_model_and_type(counted):
    spec = MethodSpec("kv_full")
    first = check_cached(spec)
    assert check_cached(spec) == first and counted["runs"] == 1
    check_cached(spec, dtype="bfloat16")
    assert counted["runs"] == 2
    check_cached(MethodSpec("kv_snapkv", {"window": 4}))
    check_cached(MethodSpec("kv_snapkv", {"window": 5}))
    assert counted["runs"] == 4


def test_changed_sources_are_checked_again(counted, monkeypatch):
    spec = MethodSpec("kv_full")
    check_cached(spec)
    monkeypatch.setattr(checking, "method_sources", lambda method_id: "other")
    check_cached(spec)
    assert counted["runs"] == 2


def test_what_raised_is_not_remembered(counted):
    counted["results"] = [CheckResult("a", "raised", "MemoryError: full")]
    check_cached(MethodSpec("kv_full"))
    check_cached(MethodSpec("kv_full"))
    assert counted["runs"] == 2


@pytest.mark.parametrize("damage", ["", "[{", "{}", '[{"nme": 1}]'])
def test_a_damaged_memory_is_made_anew(counted, tmp_path, damage):
    spec = MethodSpec("kv_full")
    check_cached(spec)
    (path,) = (tmp_path / "checks").iterdir()
    path.write_text(damage, encoding="utf-8")
    assert check_cached(spec) == counted["results"] and counted["runs"] == 2


def test_a_sound_method_passes_on_the_command_line(zoo):
    code, out, err = zoo("check", "kv_full", "--device", "cpu")
    assert (code, err) == (0, "")
    assert "kv_full: " in out.splitlines()[-1] and "failed" not in out


def test_a_red_method_is_1_and_says_why(zoo, counted):
    code, out, err = zoo("check", "kv_full")
    assert code == 1 and "failed  b: why" in out and err == "zoo: kv_full: 1 of 2 checks hold on tiny-random\n"


def test_json_is_one_document_also_when_red(zoo, counted):
    code, out, _ = zoo("check", "kv_full", "--json")
    document = json.loads(out)
    assert code == 1 and document["passed"] is False and document["model"] == "tiny-random"
    assert [c["outcome"] for c in document["checks"]] == ["passed", "failed"]
