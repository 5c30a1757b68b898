"""A policy says what is wrong with it in one line, and what it leaves out has a stated value."""

import math

import pytest

from harness.errors import UsageError
from harness.gate.policy import COUNTS, DECODE_METRICS, Policy, load_policy, parse_policy
from harness.gate.run import noisy_comparisons


def policy(*trials, **fields):
    return parse_policy({"trial": list(trials), **fields}, "p.toml")


def ar(**fields):
    return {"method": "ar", **fields}


DECODE, TASK = ar(decode="chatx16n4"), ar(task="zoo_copy_gen", metrics=["exact_match"])


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"trial": [DECODE], "marjin": 0.1}, "'marjin'; did you mean 'margin'?"),
        ({"trial": [{**DECODE, "metod": "ar"}]}, "trial.0.metod of policy p.toml: 'metod'; did you mean 'method'?"),
        ({"trial": [{**DECODE, "metrics": ["speedup_totl"]}]}, "did you mean 'speedup_total'?"),
        ({"trial": [{**DECODE, "margins": {"speedup_cqu": 0.1}}]}, "did you mean 'speedup_cpu'?"),
        ({"trial": [{**DECODE, "metrics": ["exact_match"]}]}, "unknown metric of a decode trial 'exact_match'"),
        ({"trial": [ar(workload="w", metrics=["speedup_total"])]}, "unknown metric of a workload trial"),
        ({"trial": [{**TASK, "metrics": ["exact_mach"]}]}, "did you mean 'exact_match'?"),
        ({"trial": [{**DECODE, "workload": "w"}]}, "one of decode, workload and task"),
        ({"trial": [ar()]}, "one of decode, workload and task"),
        ({"trial": [ar(task="zoo_copy_gen")]}, "a task's trial names its metrics"),
        ({"trial": [{"decode": "chatx16n4"}]}, "trial.0.method"),
        ({"trial": [ar(decode="chat x16")]}, "cannot read decode workload 'chat x16'"),
        ({"trial": [ar(decode="chatx1n4")]}, "new_tokens"),
        ({"trial": [DECODE], "margin": 2.0}, "margin"),
        ({"trial": [DECODE], "false_alarm": 0.0}, "false_alarm"),
        ({"trial": [DECODE], "budget_s": math.inf}, "budget_s"),
        ({"trial": [DECODE], "quality_margin": math.nan}, "quality_margin"),
        ({"trial": [{**DECODE, "margins": {"forwards": math.nan}}]}, "trial.0.margins.forwards"),
        ({"trial": [{**DECODE, "margins": {"forwards": -0.1}}]}, "a margin of -0.1 for forwards"),
        ({"trial": [{**TASK, "margins": {"exact_match": 0.0}}]}, "a margin of 0 for exact_match"),
        ({"trial": []}, "trial"),
        ({}, "trial"),
        ({"trial": "ar"}, "trial"),
    ],
)
def test_a_wrong_policy_is_one_line_with_the_remedy(tables, said):
    with pytest.raises(UsageError) as caught:
        parse_policy(tables, "p.toml")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"margin = ", "is not TOML"), (b"model = '\xff'", "is not TOML"), (None, "No such file or directory")],
)
def test_a_file_that_is_no_policy_is_one_line(tmp_path, content, said):
    path = tmp_path / "gate.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_policy(path)
    assert said in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_is_read_as_written(tmp_path):
    path = tmp_path / "gate.toml"
    path.write_text(
        "margin = 0.1\n[[trial]]\nmethod = 'ar'\ndecode = 'chatx16n4'\nbudget_s = 2\n"
        "[trial.margins]\nspeedup_total = 0.2\n"
    )
    found = load_policy(path)
    (trial,) = found.trial
    assert (found.margin, trial.method, trial.budget_s) == (0.1, "ar", 2)
    assert found.margin_of(trial, "speedup_total") == 0.2 and found.margin_of(trial, "speedup_cpu") == 0.1


def test_margins_by_kind_of_metric():
    found = policy(DECODE, TASK, margin=0.1, quality_margin=0.3)
    decode, task = found.trial
    assert {found.margin_of(decode, name) for name in COUNTS} == {0.0}
    assert {found.margin_of(decode, name) for name in set(DECODE_METRICS) - set(COUNTS)} == {0.1}
    assert found.margin_of(task, "exact_match") == 0.3


def test_what_a_trial_judges_by_default():
    decode, workload = policy(DECODE, ar(workload="attention")).trial
    assert decode.wanted == (*COUNTS, "speedup_total") and workload.wanted == ("speedup",)
    assert policy({**DECODE, "metrics": ["forwards"]}).trial[0].wanted == ("forwards",)


def test_names_tell_trials_apart():
    names = [
        trial.name
        for trial in policy(
            DECODE, {**DECODE, "against": "prompt_lookup"}, {**DECODE, "model": "tiny-random"}, TASK
        ).trial
    ]
    assert names == [
        "ar on chatx16n4",
        "ar against prompt_lookup on chatx16n4",
        "ar on chatx16n4 (tiny-random)",
        "ar on zoo_copy_gen",
    ]


def test_error_rates_are_shared_among_what_has_noise():
    metrics = ["forwards", "speedup_total", "speedup_cpu", "peak_memory_bytes"]
    assert noisy_comparisons(policy({**DECODE, "metrics": metrics}, TASK)) == 4
    assert noisy_comparisons(policy({**DECODE, "metrics": ["forwards"]})) == 1


def test_the_stated_error_rates_are_the_defaults():
    found = policy(DECODE)
    assert isinstance(found, Policy) and (found.false_alarm, found.false_pass) == (0.01, 0.05)
