"""The workload ``finetune update``: one step of fine-tuning, undone after each call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.kinds.method import Workload
from harness.kinds.objective.finetune import FineTuningMethod, TextBatch
from harness.subjects.subject import Subject
from harness.toolkit.rows import batches, windows


def update_workload(method: FineTuningMethod, subject: Subject) -> Workload:
    """Timed against the baseline's workload of the same name; each call returns loss and gradients' norm."""
    rows = windows(subject.text_tokenizer(), method.corpus, "train", method.rows_per_step, method.length, 0)
    batch = TextBatch.of(next(batches(rows, method.rows_per_step, 1, 0, subject.device)))

    def make() -> Callable[[], Tensor]:
        model, trainable = method.learner(subject, 0)
        weights = list(trainable.values())

        def call() -> Tensor:
            with torch.inference_mode(False), torch.enable_grad(), method.training(model, batch):
                loss = method.loss(model, batch)
                found = torch.autograd.grad(loss, weights, allow_unused=True)
            norm = torch.stack([g.norm() for g in found if g is not None]).norm()
            return torch.stack([loss.detach().to(norm.dtype), norm])

        return call

    return Workload(name="finetune update", make=make, units={"tokens": float(batch.mask_BT.sum())})
