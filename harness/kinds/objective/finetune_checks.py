"""Invariants of fine-tuning, on a training of a few steps."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch

from harness.kinds.invariants import assert_close, fingerprint, float32_twin, forced_logits, random_ids
from harness.kinds.method import Check, PrepareContext
from harness.kinds.objective.finetune import FineTuningMethod, TextBatch
from harness.subjects.subject import Subject

SMALL: dict[str, Any] = {"rows": 4, "length": 48, "steps": 3, "rows_per_step": 2, "rank": 2, "learning_rate": 1e-2}


@dataclass
class _Checks:
    method: FineTuningMethod
    given: Subject

    @cached_property
    def subject(self) -> Subject:
        return float32_twin(self.given)

    @cached_property
    def small(self) -> FineTuningMethod:
        return cast(FineTuningMethod, replace(cast(Any, self.method), **SMALL))

    def made(self, seed: int = 0) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            context = PrepareContext(seed, Path(folder), lambda name: self.subject, lambda text: None)
            return self.small.prepare(self.subject, context)

    @cached_property
    def artifact(self) -> Any:
        return self.made()

    def seeded(self) -> None:
        """The same seed gives the same adapters, another seed others."""
        again, other = self.made(), self.made(1)
        state = self.artifact["state"]
        if not all(torch.equal(state[k], again["state"][k]) for k in state):
            raise AssertionError("equal seeds gave other adapters")
        if all(torch.equal(state[k], other["state"][k]) for k in state):
            raise AssertionError("another seed gave the same adapters")

    def untouched(self) -> None:
        """Training and applying leave the given model as it was."""
        before = fingerprint(self.subject.model)
        weights = [p.clone() for p in self.subject.model.parameters()]
        with self.small.apply(self.subject, self.made()):
            pass
        moved = sum(not torch.equal(p, w) for p, w in zip(self.subject.model.parameters(), weights, strict=True))
        if moved or fingerprint(self.subject.model) != before:
            raise AssertionError(f"{moved} tensors of the given model changed")

    def learns(self) -> None:
        """The merged model is another one, and an ordinary one: its modules are those of the given model."""
        with self.small.apply(self.subject, self.artifact) as trained:
            ids = [random_ids(self.subject, 12, 3)]
            if torch.equal(forced_logits(trained, ids, [[]]), forced_logits(self.subject, ids, [[]])):
                raise AssertionError("three steps changed nothing")
            ours, theirs = (fingerprint(s.model)[0] for s in (trained, self.subject))
            if ours != theirs:
                raise AssertionError("the trained model's modules or hooks are not those of the given one")

    def padding(self) -> None:
        """What stands in padded places changes neither loss nor gradients."""
        model, trainable = self.small.learner(self.subject, 0)
        with torch.no_grad():
            for index, parameter in enumerate(trainable.values()):
                parameter.normal_(std=0.1, generator=torch.Generator(parameter.device).manual_seed(index))
        ids_BT = torch.tensor([random_ids(self.subject, 20, 1), random_ids(self.subject, 20, 2)])
        mask_BT = torch.arange(20) < torch.tensor([[20], [13]])
        with torch.inference_mode(False), torch.enable_grad():
            self.small.get_ready(model, itertools.repeat((ids_BT.to(model.device), mask_BT.to(model.device))))
        found = []
        for junk in (0, 7):
            batch = TextBatch.of((ids_BT.where(mask_BT, junk).to(model.device), mask_BT.to(model.device)))
            with torch.inference_mode(False), torch.enable_grad(), self.small.training(model, batch):
                loss = self.small.loss(model, batch)
                grads = torch.autograd.grad(loss, list(trainable.values()), allow_unused=True)
            found.append(torch.cat([loss.detach()[None], *(g.flatten() for g in grads if g is not None)]))
        assert_close("other padding", found[1], found[0], 1e-6)


def finetune_checks(method: FineTuningMethod, subject: Subject) -> Iterable[Check]:
    """All checks of a fine-tuning method."""
    checks = _Checks(method, subject)
    yield Check("same seed, same adapters", checks.seeded)
    yield Check("the given model is left as it was", checks.untouched)
    yield Check("the trained model is an ordinary one", checks.learns)
    yield Check("padding does not leak", checks.padding)
