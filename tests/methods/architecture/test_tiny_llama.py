"""The baseline of the architectures: all checks, and that it learns."""

from dataclasses import replace
from pathlib import Path

from harness.kinds.method import PrepareContext
from methods.architecture.tiny_llama import TinyLlama


def test_all_checks_hold(tiny):
    for check in TinyLlama().checks(tiny):
        check.run()


def test_it_learns_from_the_corpus(tiny):
    method = replace(TinyLlama().check_twin(), steps=60, batch=4, length=32, hidden=32, learning_rate=1e-2)
    artifact = method.prepare(tiny, PrepareContext(0, Path(), lambda name: tiny, lambda text: None))
    losses = artifact["stages"][0]["losses"]
    assert sum(losses[-5:]) / 5 < losses[0] - 1
