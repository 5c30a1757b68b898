"""LoRA adapters around a model's attention, by peft: what is trained where all weights are too many."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from harness.errors import Refused, UsageError

PROJECTIONS = ("q_proj", "v_proj")


class Adapted(Protocol):
    """A model with adapters in it."""

    def merge_and_unload(self) -> Any:
        """Add the adapters to the weights they stand beside, and take them out of the model."""


def with_adapters(model: Any, rank: int, seed: int) -> Adapted:
    """Put adapters of this rank into the model, in place; all other weights stay as they are in training.

    Raises :class:`UsageError` without peft, and :class:`Refused` where a model names its projections otherwise.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise UsageError("lora_rank needs the package peft: pip install 'token-zoo[lora]'") from error
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(PROJECTIONS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return LoraModel(model, config, "default")  # type: ignore[no-any-return]
        except ValueError as error:
            raise Refused(
                f"the model has no modules named {' or '.join(PROJECTIONS)}, so lora_rank must be 0"
            ) from error
