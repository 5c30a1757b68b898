"""Tests of my_method: the checks of its kind, and which tokens stay."""

from harness.kinds.checking import run_checks
from harness.subjects.load import load_subject
from harness.subjects.runner import Runner
from methods.pruning.my_method import MyMethod


def test_the_checks_of_its_kind_hold():
    results = run_checks(MyMethod(), load_subject("tiny-random", device="cpu"))
    assert not [f"{r.name}: {r.reason}" for r in results if not r.passed]


def test_the_most_recent_tokens_stay():
    subject = load_subject("tiny-random", device="cpu")
    with MyMethod(keep_ratio=0.3).apply(subject) as pruned:
        runner = Runner(pruned.model, pruned.new_cache)
        runner.prefill([list(range(10))])
    for layer in runner.cache.layers:
        assert layer.position.flatten().unique().tolist() == [7, 8, 9]
