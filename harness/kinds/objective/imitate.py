"""Supervised training on written responses, before reinforcement begins."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch

from harness.kinds.objective.rollouts import token_logps
from harness.kinds.objective.stages import masked
from harness.subjects.runner import pad_left
from harness.subjects.subject import Subject
from harness.toolkit.trainer import adamw, optimizer_step
from harness.toolkit.verifiable import VerifiableTask, prompt_ids

Example = tuple[Any, str]
"""A problem and the response to imitate."""


def imitate(
    subject: Subject,
    task: VerifiableTask,
    example: Callable[[random.Random], Example],
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> list[float]:
    """Train the subject's own model on ``batch`` examples a step; returns each step's mean nats a response token."""
    model, rng = subject.model, random.Random(f"imitate:{seed}")
    optimizer = adamw(model, learning_rate)
    tokenizer, losses = subject.text_tokenizer(), []
    for _ in range(steps):
        pairs = [example(rng) for _ in range(batch)]
        prompt_BP, valid_BP = pad_left([prompt_ids(subject, task, problem) for problem, _ in pairs], subject.device)
        valid_BP = torch.ones_like(prompt_BP, dtype=torch.bool) if valid_BP is None else valid_BP
        rows = [[*tokenizer.encode(text), *tokenizer.eos_ids[:1]] for _, text in pairs]
        width = max(map(len, rows))
        ids_BT = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=subject.device)
        length_B = torch.tensor([len(row) for row in rows], device=subject.device)
        mask_BT = torch.arange(width, device=subject.device)[None] < length_B[:, None]
        logps_BTV = token_logps(model, (prompt_BP, valid_BP), ids_BT, 1.0)
        chosen_BT = logps_BTV.gather(-1, ids_BT[..., None])[..., 0]
        loss = -masked(chosen_BT, mask_BT).sum() / mask_BT.sum()
        optimizer_step(optimizer, loss)
        losses.append(float(loss.detach()))
    return losses
