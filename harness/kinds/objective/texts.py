"""Written responses as tensors, to train on without sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.kinds.objective.rollouts import (
    chosen_logps,
    encoded_prompts,
    padded_prompts,
    padded_responses,
    token_logps,
)
from harness.kinds.objective.stages import masked
from harness.subjects.subject import Subject
from harness.toolkit.verifiable import VerifiableTask


@dataclass(frozen=True)
class Encoded:
    """Prompts, padded on the left, and responses with their end, padded on the right."""

    prompts: tuple[Tensor, Tensor]
    ids_BT: Tensor
    mask_BT: Tensor

    @classmethod
    def of(cls, subject: Subject, task: VerifiableTask, problems: list[Any], responses: list[str]) -> Encoded:
        """Encode with the subject's tokenizer; refuses texts that are too long for it."""
        ids_BT, mask_BT = padded_responses(subject, responses)
        prompts = encoded_prompts(subject, task, problems, ids_BT.shape[1])
        return cls(padded_prompts(prompts, subject.device), ids_BT, mask_BT)

    def logps(self, model: Any) -> Tensor:
        """Log-probabilities of the responses' tokens at temperature 1, ``[B, T]``, 0 at padding."""
        return masked(chosen_logps(token_logps(model, self.prompts, self.ids_BT, 1.0), self.ids_BT), self.mask_BT)
