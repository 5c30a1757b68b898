"""Training at a fixed budget: a schedule, and a record of what was spent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.kinds.method import Measurement
from harness.toolkit.rows import Batch
from harness.toolkit.trainer import optimizer_step, repeatable

Loss = Callable[[Any, Tensor, Tensor], Tensor]
WARM_UP_STEPS = 20
LAST_RATE = 0.1
"""Part of the learning rate that is left at the end of the cosine."""


def causal_loss(model: Any, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean negative log-likelihood, in nats, of all real tokens but each row's first, for a transformers model."""
    return next_token_loss(model(input_ids=ids_BT, use_cache=False).logits, ids_BT, mask_BT)


def next_token_loss(logits_BTV: Tensor, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The same of the logits that each token gives of the next."""
    real_BT = mask_BT[:, 1:]
    return F.cross_entropy(logits_BTV[:, :-1][real_BT].float(), ids_BT[:, 1:][real_BT])


def rate_at(step: int, steps: int) -> float:
    """Part of the learning rate at a step: a linear rise, then a cosine down to :data:`LAST_RATE`."""
    falling = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / WARM_UP_STEPS) * falling


def descend(
    phase: str,
    model: nn.Module,
    loss: Loss,
    rows: Iterable[Batch],
    steps: int,
    rates: Iterable[tuple[float, Iterable[nn.Parameter]]],
    low_precision: bool = False,
) -> dict[str, Any]:
    """One stage of a training by AdamW: parameters in groups with their highest learning rates.

    Returns plain data: ``phase``, each step's loss, real tokens that went in (repeats counted) and seconds.
    """
    groups = [{"params": list(held), "lr": rate} for rate, held in rates]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps))
    losses, tokens, started = [], 0, time.perf_counter()
    model.train()
    for ids_BT, mask_BT in rows:
        with repeatable():
            with torch.autocast(ids_BT.device.type, torch.bfloat16, enabled=low_precision):
                value = loss(model, ids_BT, mask_BT)
            optimizer_step(optimizer, value)
        schedule.step()
        losses.append(float(value.detach()))
        tokens += int(mask_BT.sum())
    model.eval()
    return {"phase": phase, "losses": losses, "tokens": tokens, "seconds": time.perf_counter() - started}


def stage_measurements(stages: Sequence[dict[str, Any]]) -> list[Measurement]:
    """Steps of all stages, the mean loss over the last tenth of the last one, and each one's seconds."""
    losses = stages[-1]["losses"]
    last = losses[-max(1, len(losses) // 10) :]
    return [
        Measurement("updates", float(sum(len(stage["losses"]) for stage in stages))),
        Measurement("train_loss_end", sum(last) / len(last), n=len(last)),
        *(Measurement("phase_seconds", s["seconds"], phase=s["phase"], source="clock") for s in stages),
    ]
