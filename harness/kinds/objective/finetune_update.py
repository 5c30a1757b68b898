"""The workload ``finetune update``: gradients of one step of fine-tuning, on random text."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from harness.kinds.invariants import random_ids
from harness.kinds.method import Workload
from harness.kinds.objective.finetune import FineTuningMethod, TextBatch
from harness.subjects.subject import Subject


def update_workload(method: FineTuningMethod, subject: Subject) -> Workload:
    """Timed against the baseline's workload of the same name; each call returns loss and gradients' norm.

    What a step costs does not depend on what the text says, so that any model can be timed, whatever it can read.
    """
    length = min(method.length, subject.max_length)
    ids = [random_ids(subject, length, row) for row in range(method.rows_per_step)]
    ids_BT = torch.tensor(ids, device=subject.device)
    batch = TextBatch.of((ids_BT, torch.ones_like(ids_BT, dtype=torch.bool)))

    def make() -> Callable[[], Tensor]:
        model, trainable = method.learner(subject, 0)
        with torch.inference_mode(False), torch.enable_grad():
            method.get_ready(model, itertools.repeat((batch.ids_BT, batch.mask_BT)))
        weights = list(trainable.values())

        def call() -> Tensor:
            with torch.inference_mode(False), torch.enable_grad(), method.training(model, batch):
                loss = method.loss(model, batch)
                found = torch.autograd.grad(loss, weights, allow_unused=True)
            norm = torch.stack([g.norm() for g in found if g is not None]).norm()
            return torch.stack([loss.detach().to(norm.dtype), norm])

        return call

    return Workload(name="finetune update", make=make, units={"tokens": float(ids_BT.numel())})
