"""Reasons to hand the next token to another model that need no training: yardsticks of a trained router."""

from __future__ import annotations

from collections.abc import Callable

import torch

from harness.kinds.decoding.base import Continuation, StepModel, StepOut

Route = Callable[[Continuation, StepOut, StepModel], float]
"""From a text, the state of the model that writes it and the other model to a score: the higher, the more reason."""


def entropy(text: Continuation, seen: StepOut, other: StepModel) -> float:
    """Of the writing model's law, in nats."""
    return float(torch.special.entr(seen.logits_BV[0].float().softmax(-1)).sum())


def random(text: Continuation, seen: StepOut, other: StepModel) -> float:
    """Drawn evenly from [0, 1)."""
    return float(torch.rand((), generator=text.rng))


def oracle(text: Continuation, seen: StepOut, other: StepModel) -> float:
    """1 where the best tokens differ, else 0; the other model reads every token to know."""
    return float(text.best(other.read(text.history).logits_BV[0]) != text.best(seen.logits_BV[0]))
