"""Small pieces that every tiny training needs: one optimizer step, and putting a model back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def adamw(model: Any, learning_rate: float) -> torch.optim.AdamW:
    """AdamW without weight decay over the parameters that take gradients."""
    return torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0
    )


def optimizer_step(optimizer: torch.optim.Optimizer, loss: Tensor, max_norm: float = 1.0) -> Tensor:
    """One step down ``loss``; returns the gradient's norm before it was cut to ``max_norm``."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    held = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(held, max_norm)
    optimizer.step()
    return norm


@contextmanager
def repeatable() -> Iterator[None]:
    """Kernels whose results do not depend on the order in which a GPU's threads arrive, wherever there are such."""
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)


@contextmanager
def restoring(model: Any, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put parameters, gradients and a fresh optimizer's state back on exit, also after an exception."""
    held = [(p, p.detach().clone()) for p in model.parameters()]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in held:
                parameter.copy_(before)
        optimizer.zero_grad(set_to_none=True)
        optimizer.state.clear()
