"""Written responses as tensors, to train on without sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.kinds.objective.rollouts import chosen_logps, encoded_prompts, token_logps
from harness.kinds.objective.stages import masked
from harness.subjects.runner import pad_left
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
