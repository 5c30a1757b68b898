"""What making an artifact cost, and when its energy is among it."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from harness.kinds import artifacts
from harness.kinds.artifacts import ArtifactStore
from harness.kinds.method import Method
from harness.subjects.load import load_subject


@dataclass
class Slow:
    """Stands for a method that takes a while to prepare."""

    seconds: float = 0.0
    signature: str = "grpo"

    class card:
        id = "grpo"

    def prepare(self, subject, ctx):
        time.sleep(self.seconds)
        return {"state": torch.zeros(1)}


@pytest.fixture
def store_in(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "cache_dir", lambda: Path(tmp_path))
    return load_subject("tiny-random", "cpu", "float32")


def obtained(store, subject, method):
    store.obtain(method, subject)
    return {cost.metric: cost for cost in store.costs["grpo"]}


def test_seconds_are_kept_and_found_again(store_in):
    made = obtained(ArtifactStore(), store_in, Slow(0.05))
    assert set(made) == {"train_seconds"} and made["train_seconds"].value >= 0.05
    assert obtained(ArtifactStore(metered=True), store_in, Slow(9.0)) == made


def test_a_metered_store_counts_joules_of_what_lasts_long_enough(store_in):
    made = obtained(ArtifactStore(metered=True), store_in, Slow(3.2))
    assert made["train_joules"].value > 0 and made["train_joules"].source in ("counter", "model")
    assert set(obtained(ArtifactStore(metered=True), store_in, Slow(0.0, "grpo@updates=1"))) == {"train_seconds"}


def test_a_method_has_no_curves_unless_it_says_so():
    assert Method().training_samples(None) == ()
