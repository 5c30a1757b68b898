"""Drafts made of a model at hand without training: with layers left out, or with a smaller output vocabulary.

The modules are shared with the given model; only what differs is copied.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.subjects.load import wrap_model
from harness.subjects.subject import Subject


def _own(module: Any) -> Any:
    """A copy of a module that shares its parts but may exchange them."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def kept_layers(target: Subject, kept: Sequence[int]) -> Subject:
    """The target with these layers alone, in order, its norm and its head."""
    model = _own(target.model)
    body = _own(model.get_decoder())
    layers = []
    for place, index in enumerate(kept):
        layer = _own(body.layers[index])
        layer.self_attn = _own(layer.self_attn)
        layer.self_attn.layer_idx = place
        layers.append(layer)
    body.layers = nn.ModuleList(layers)
    body.config = copy.deepcopy(body.config)
    config = body.config.get_text_config()
    types = getattr(config, "layer_types", None)
    config.num_hidden_layers = len(layers)
    if types:
        config.layer_types = [types[index] for index in kept]
    setattr(model, model.base_model_prefix, body)
    model.config = body.config
    return wrap_model(model, target.tokenizer, f"{target.name}-{len(layers)}layers", target.max_length)


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
    model = _own(draft.model)
    model.lm_head = TrimmedHead(draft.model.get_output_embeddings(), subset_K)
    return wrap_model(model, draft.tokenizer, f"{draft.name}-trimmed{len(subset_K)}", draft.max_length)
