"""Invariants of every recommender, on a small model that was trained for a few steps."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.kinds.architecture.interactions import synthetic
from harness.kinds.architecture.recommend import RecommenderMethod
from harness.kinds.invariants import fingerprint
from harness.kinds.method import Check, PrepareContext
from harness.subjects.subject import Subject

TOLERANCE = 1e-4
LEARNING_STEPS, LEARNT = 60, 0.9
"""Part of the first loss that may be left after so many steps."""


@dataclass
class _Checks:
    method: RecommenderMethod
    subject: Subject

    def made(self, seed: int = 0, **changes: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            context = PrepareContext(seed, Path(folder), lambda name: self.subject, lambda text: None)
            return replace(self.method, **changes).prepare(self.subject, context)

    @cached_property
    def artifact(self) -> Any:
        return self.made()

    def scored(self, history_BL: Tensor, artifact: Any = None) -> Tensor:
        with self.method.apply(self.subject, artifact or self.artifact) as trained, torch.inference_mode():
            return self.method.scores(trained.model, history_BL.to(trained.device))

    def seeds(self) -> None:
        """The same seed gives the same weights, bit for bit; another seed gives others."""
        first, again, other = self.artifact["weights"], self.made()["weights"], self.made(seed=1)["weights"]
        if not all(torch.equal(first[name], again[name]) for name in first):
            raise AssertionError("two trainings of one seed differ")
        if all(torch.equal(first[name], other[name]) for name in first):
            raise AssertionError("another seed gives the same weights")

    def rows(self) -> None:
        """A history is scored alone as in a batch, and padding behind it changes nothing."""
        history = synthetic().users_UL[:3, :6].clone()
        history[1, 4:] = 0
        together = self.scored(history)
        for index, row in enumerate(history):
            alone = self.scored(F.pad(row[row > 0][None], (0, index)))[0]
            error = float((alone.clamp(min=-1e9) - together[index].clamp(min=-1e9)).abs().max())
            if not error <= TOLERANCE:
                raise AssertionError(f"row {index} alone differs by {error:.3g}")

    def learns(self) -> None:
        """The loss falls."""
        losses = self.made(steps=2 * LEARNING_STEPS, learning_rate=1e-2)["stages"][-1]["losses"]
        if not sum(losses[-5:]) / 5 < LEARNT * losses[0]:
            raise AssertionError(f"the loss went from {losses[0]:.4f} to {losses[-1]:.4f} in {len(losses)} steps")

    def plain_data(self) -> None:
        """The artifact is read back without running code, and ranks alike."""
        held = io.BytesIO()
        torch.save(self.artifact, held)
        held.seek(0)
        history = synthetic().users_UL[:2, :5]
        if not torch.equal(self.scored(history, torch.load(held, weights_only=True)), self.scored(history)):
            raise AssertionError("an artifact that was kept and read back ranks otherwise")

    def restored(self) -> None:
        """The given model is as before."""
        state = fingerprint(self.subject.model)
        self.scored(synthetic().users_UL[:1, :3])
        if fingerprint(self.subject.model) != state:
            raise AssertionError("the given model changed")


def recommender_checks(method: RecommenderMethod, subject: Subject) -> Iterable[Check]:
    """All checks; one training of a few steps serves those that only read it."""
    checks = _Checks(method, subject)
    yield Check("same seed gives the same weights", checks.seeds)
    yield Check("a row alone is the row in a batch", checks.rows)
    yield Check("the loss falls", checks.learns)
    yield Check("the artifact is plain data", checks.plain_data)
    yield Check("the given model is left as it was", checks.restored)
