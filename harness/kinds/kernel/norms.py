"""How far a kernel's result lies from its reference's: one number for a tensor, the worst one for several."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def relative_rms(value: Tensor, reference: Tensor) -> float:
    """``||value - reference|| / ||reference||`` in float64; ``inf`` on another shape or a number that is not finite.

    An all-zero reference gives 0 where the value is zero too, else ``inf``.
    """
    if value.shape != reference.shape:
        return math.inf
    exact, given = reference.detach().double(), value.detach().double().to(reference.device)
    distance, length = float(torch.linalg.vector_norm(given - exact)), float(torch.linalg.vector_norm(exact))
    if not math.isfinite(distance) or not math.isfinite(length):
        return math.inf
    if length == 0.0:
        return 0.0 if distance == 0.0 else math.inf
    return distance / length


def result_error(result: Any, reference: Any) -> float:
    """The worst :func:`relative_rms` of two workload results: tensors, nested sequences or comparable values.

    Values that are not tensors count 0 where equal and ``inf`` where not.
    """
    if isinstance(reference, Tensor):
        return relative_rms(result, reference) if isinstance(result, Tensor) else math.inf
    if isinstance(reference, (list, tuple)):
        if not isinstance(result, (list, tuple)) or len(result) != len(reference):
            return math.inf
        return max((result_error(a, b) for a, b in zip(result, reference, strict=True)), default=0.0)
    if isinstance(result, (Tensor, list, tuple)):
        return math.inf
    return 0.0 if bool(result == reference) else math.inf
