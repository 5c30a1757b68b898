"""The workload ``update``: one training update on a frozen batch, undone after each call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from harness.kinds.method import Workload
from harness.kinds.objective.base import ObjectiveMethod
from harness.kinds.objective.batch import RolloutBatch
from harness.kinds.objective.copies import training_copy
from harness.kinds.objective.loop import Learner
from harness.kinds.objective.rollouts import written_batch
from harness.kinds.objective.samplers import with_old_policy
from harness.subjects.subject import Subject
from harness.toolkit.trainer import restoring

BATCH_SEED = 0


def frozen_batch(method: ObjectiveMethod, subject: Subject) -> RolloutBatch:
    """Responses written by the task, with the subject's own log-probabilities: the same texts for every method."""
    batch = written_batch(subject, method.task(), method.prompts_per_update, method.group_size, BATCH_SEED)
    batch = with_old_policy(batch, subject.model, method, method.critic(subject))
    return replace(batch, behavior_logps_BT=batch.old_logps_BT)


def update_workload(method: ObjectiveMethod, subject: Subject) -> Workload:
    """Timed against the baseline's workload of the same name; each call returns loss and gradient norm."""
    batch = frozen_batch(method, training_copy(subject))

    def make() -> Callable[[], Tensor]:
        learner = Learner.of(method, training_copy(subject))

        def call() -> Tensor:
            with restoring(learner.modules, learner.optimizer):
                figures = learner.update(batch, 0.0)
            return torch.tensor([figures["loss"], figures["grad_norm"]])

        return call

    tokens = int(batch.lengths_B.sum())
    details = {"responses": batch.size, "minibatches": method.minibatches}
    return Workload(name="update", make=make, units={"tokens": float(tokens)}, details=details)
