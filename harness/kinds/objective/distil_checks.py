"""Invariants of distillation, on a training of a few steps."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from harness.kinds.invariants import fingerprint, float32_twin
from harness.kinds.method import Check, PrepareContext
from harness.kinds.objective.distil import DistillationMethod, forward_kl, student_logits
from harness.subjects.requests import GenerateRequest
from harness.subjects.subject import Subject
from harness.toolkit.students import TeacherText, opened_student

SMALL: dict[str, Any] = {"hidden": 16, "layers": 1, "texts": 20, "new_tokens": 6, "steps": 3, "tokens_per_step": 24}


@dataclass
class _Checks:
    method: DistillationMethod
    given: Subject

    @cached_property
    def subject(self) -> Subject:
        return float32_twin(self.given)

    def made(self, seed: int = 0) -> Any:
        small = replace(self.method, **SMALL)
        with tempfile.TemporaryDirectory() as folder:
            context = PrepareContext(seed, Path(folder), lambda name: self.subject, lambda text: None)
            return small.prepare(self.subject, context)

    def reproducible(self) -> None:
        """The same seed gives the same weights, another seed others."""
        first, again, other = self.made(), self.made(), self.made(1)
        same = all(torch.equal(first["weights"][k], again["weights"][k]) for k in first["weights"])
        if not same or all(torch.equal(first["weights"][k], other["weights"][k]) for k in first["weights"]):
            raise AssertionError(f"equal seeds give equal weights: {same}; another seed gives others")

    def untouched(self) -> None:
        """Training leaves the target as it was."""
        before, weights = fingerprint(self.subject.model), [p.clone() for p in self.subject.model.parameters()]
        self.made()
        moved = [
            i for i, (p, w) in enumerate(zip(self.subject.model.parameters(), weights, strict=True)) if (p != w).any()
        ]
        if moved or fingerprint(self.subject.model) != before:
            raise AssertionError(f"{len(moved)} tensors of the target changed")

    def padding(self) -> None:
        """A text's loss is the same alone and beside a longer one."""
        student = opened_student(self.subject, self.made()).model
        width = self.subject.model.config.get_text_config().hidden_size
        texts = [TeacherText(tuple(range(1, n)), tuple(range(3, 3 + n)), torch.zeros(n, width)) for n in (4, 9)]
        with torch.no_grad():
            together, alone = student_logits(student, texts)[:4], student_logits(student, texts[:1])
        error = float((together - alone).abs().max())
        if not error < 1e-4:
            raise AssertionError(f"logits of a text differ by {error:.3g} beside a longer one")

    def divergence(self) -> None:
        """The loss of a student that equals the target is 0, and it is positive for another."""
        logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
        zero, other = forward_kl(logits, logits + 3.0), forward_kl(logits, logits.flip(-1))
        if zero.abs().max() > 1e-5 or (other <= 0).any():
            raise AssertionError(f"KL of equal laws {float(zero.abs().max()):.3g}, of others {float(other.min()):.3g}")

    def usable(self) -> None:
        """The artifact opens as a subject that generates."""
        with self.method.apply(self.subject, self.made()) as student:
            if student.model is self.subject.model:
                raise AssertionError("the student is the target itself")
            row = student.generate(GenerateRequest(prompts=[[1, 2, 3]], max_new_tokens=4, ignore_eos=True))[0]
        if len(row.tokens) != 4:
            raise AssertionError(f"{len(row.tokens)} tokens generated; 4 asked")


def distillation_checks(method: DistillationMethod, subject: Subject) -> Iterable[Check]:
    """All checks of a distillation method."""
    checks = _Checks(method, subject)
    yield Check("same seed gives the same student", checks.reproducible)
    yield Check("the target is left as it was", checks.untouched)
    yield Check("padding does not leak", checks.padding)
    yield Check("the loss is a divergence", checks.divergence)
    yield Check("the artifact opens and generates", checks.usable)
