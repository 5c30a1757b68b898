"""A draft with a smaller output vocabulary, made of a draft at hand; its modules are shared, the head is its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.subjects.load import wrap_model
from harness.subjects.subject import Subject
from harness.toolkit.small_models import own_parts


class TrimmedHead(nn.Module):
    """A head of ``k`` rows whose logits stand at their tokens' places; all other tokens have no probability."""

    def __init__(self, head: Any, subset_K: Tensor) -> None:
        super().__init__()
        self.vocabulary = head.weight.shape[0]
        self.subset_K = subset_K.to(head.weight.device)
        self.kept = nn.Linear(head.weight.shape[1], len(subset_K), bias=head.bias is not None)
        self.kept.to(head.weight.device, head.weight.dtype)
        with torch.no_grad():
            self.kept.weight.copy_(head.weight[subset_K])
            if head.bias is not None:
                self.kept.bias.copy_(head.bias[subset_K])

    def forward(self, hidden: Tensor) -> Tensor:
        """``[..., H] -> [..., V]``."""
        logits = hidden.new_full((*hidden.shape[:-1], self.vocabulary), float("-inf"))
        logits[..., self.subset_K] = self.kept(hidden)
        return logits


def trimmed(draft: Subject, subset_K: Tensor) -> Subject:
    """The draft with a head for these tokens alone; its input embeddings stay whole."""
    model = own_parts(draft.model)
    model.lm_head = TrimmedHead(draft.model.get_output_embeddings(), subset_K)
    return wrap_model(model, draft.tokenizer, f"{draft.name}-trimmed{len(subset_K)}", draft.max_length)
