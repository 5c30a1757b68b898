"""Preferences between two responses, and a policy that is trained on them directly (DPO)."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from harness.kinds.objective.rollouts import VerifiableTask, chosen_logps, encoded_prompts, token_logps
from harness.kinds.objective.stages import masked
from harness.subjects.runner import pad_left
from harness.subjects.subject import Subject
from harness.toolkit.trainer import adamw, optimizer_step

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


@dataclass(frozen=True)
class Encoded:
    """Prompts, padded on the left, and responses with their end, padded on the right."""

    prompts: tuple[Tensor, Tensor]
    ids_BT: Tensor
    mask_BT: Tensor

    @classmethod
    def of(cls, subject: Subject, task: VerifiableTask, problems: list[Any], responses: list[str]) -> Encoded:
        """Encode with the subject's tokenizer; refuses texts that are too long for it."""
        tokenizer = subject.text_tokenizer()
        rows = [[*tokenizer.encode(text), *tokenizer.eos_ids[:1]] for text in responses]
        width = max(map(len, rows))
        prompt_BP, valid_BP = pad_left(encoded_prompts(subject, task, problems, width), subject.device)
        length_B = torch.tensor([len(row) for row in rows], device=subject.device)
        return cls(
            (prompt_BP, torch.ones_like(prompt_BP, dtype=torch.bool) if valid_BP is None else valid_BP),
            torch.tensor([row + [0] * (width - len(row)) for row in rows], device=subject.device),
            torch.arange(width, device=subject.device)[None] < length_B[:, None],
        )

    def logps(self, model: Any) -> Tensor:
        """Log-probabilities of the responses' tokens at temperature 1, ``[B, T]``, 0 at padding."""
        return masked(chosen_logps(token_logps(model, self.prompts, self.ids_BT, 1.0), self.ids_BT), self.mask_BT)


def dpo_trained(
    subject: Subject, task: VerifiableTask, seed: int, beta: float, steps: int, pairs: int, learning_rate: float
) -> Any:
    """A copy of the subject's model after ``steps`` steps on ``pairs`` fresh pairs; the subject is the reference."""
    model = copy.deepcopy(subject.model).eval()
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
