"""Preferences between two responses, and a policy that is trained on them directly (DPO)."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from harness.kinds.objective.copies import private_copy
from harness.kinds.objective.texts import Encoded
from harness.subjects.subject import Subject
from harness.toolkit.trainer import adamw, optimizer_step
from harness.toolkit.verifiable import VerifiableTask

Pair = tuple[Any, str, str]
"""A problem, the response that was preferred, and the other."""


def draw_pair(task: VerifiableTask, rng: random.Random) -> Pair:
    """Two written responses to one problem; the first is preferred with probability ``sigmoid(R_1 - R_2)``."""
    problem = task.draw(rng)
    one, other = task.written(problem, rng), task.written(problem, rng)
    difference = task.reward(problem, one) - task.reward(problem, other)
    return (problem, one, other) if rng.random() < 1 / (1 + math.exp(-difference)) else (problem, other, one)


def dpo_loss(chosen_B: Tensor, rejected_B: Tensor, beta: float) -> Tensor:
    """``-log sigmoid(beta (chosen - rejected))``, mean over pairs, of log ratios of policy and reference, ``[B]``."""
    return -logsigmoid(beta * (chosen_B - rejected_B)).mean()


def dpo_trained(
    subject: Subject, task: VerifiableTask, seed: int, beta: float, steps: int, pairs: int, learning_rate: float
) -> Any:
    """A copy of the subject's model after ``steps`` steps on ``pairs`` fresh pairs; the subject is the reference."""
    model = private_copy(subject).model.eval()
    optimizer = adamw(model, learning_rate)
    rng = random.Random(f"{seed}/pairs")
    for _ in range(steps):
        problems, chosen, rejected = (
            list(part) for part in zip(*(draw_pair(task, rng) for _ in range(pairs)), strict=True)
        )
        both = Encoded.of(subject, task, problems * 2, chosen + rejected)
        with torch.no_grad():
            reference_B = both.logps(subject.model).sum(1)
        ratio_B = both.logps(model).sum(1) - reference_B
        optimizer_step(optimizer, dpo_loss(ratio_B[:pairs], ratio_B[pairs:], beta))
    return model
