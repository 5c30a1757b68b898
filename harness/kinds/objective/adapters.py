"""LoRA adapters by peft: what is trained where all weights are too many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from harness.errors import Refused, UsageError


class Adapted(Protocol):
    """A model with adapters in it."""

    def merge_and_unload(self) -> Any:
        """Add the adapters to the weights they stand beside, and take them out of the model."""


def with_adapters(model: Any, names: Sequence[str], rank: int, alpha: float, seed: int) -> Adapted:
    """Put adapters into the linear layers of these names, in place; they alone take gradients.

    A layer ``W x`` becomes ``W x + alpha / rank * B (A x)`` with ``B`` zero at first. Raises :class:`UsageError` where
    peft is missing, and :class:`Refused` where the model has no such layers.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise UsageError("LoRA needs the package peft: pip install 'token-zoo[lora]'") from error
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(names))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return LoraModel(model, config, "default")  # type: ignore[no-any-return]
        except ValueError as error:
            raise Refused(f"no layers to adapt: the model has none named {', '.join(names)}") from error
