"""Smaller models beside a target, with its vocabulary: how they are written, made and opened.

``layers:6`` is the first six layers of the target with its norm and head, ``noised:0.02`` the target with noise of that
share of each weight's spread (as like the target as one wishes, without training), ``adaspec`` or any other method
whose artifact is a student, with its parameters (``adaspec@keep_share=1.0``); all else is the name, folder or hub id of
a model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from harness.catalog.registry import catalog
from harness.errors import Refused, UsageError
from harness.subjects.load import load_subject, wrap_model
from harness.subjects.subject import Subject
from harness.toolkit.students import opened_student


def is_made(name: str) -> bool:
    """Whether the model is the artifact of a method."""
    return name.partition("@")[0] in catalog()


_opened: dict[tuple[str, int, int, int], tuple[Any, Any, Subject]] = {}


def open_small(name: str, target: Subject, artifact: Any = None) -> Subject:
    """The model as a subject on the target's device, in its type. Refuses one with another vocabulary.

    The last one stays open: timed blocks open a method many times, and a new model would warm up in each.
    """
    key = (name, id(target.model), id(artifact), target.max_length)
    if key not in _opened:
        opened = _open(name, target, artifact)
        _opened.clear()
        # Model and artifact are held too, so that their ids are not given to others.
        _opened[key] = target.model, artifact, opened
    return _opened[key][2]


def _open(name: str, target: Subject, artifact: Any) -> Subject:
    kind, _, value = name.partition(":")
    if kind == "layers" and value.isdigit():
        return first_layers(target, int(value))
    if kind == "noised":
        return noised(target, _number(name, value))
    opened = opened_student(target, artifact) if is_made(name) else _loaded(name, target)
    sizes = [int(s.model.config.get_text_config().vocab_size) for s in (opened, target)]
    if sizes[0] != sizes[1]:
        raise Refused(f"model {name!r} has {sizes[0]} tokens and {target.name} has {sizes[1]}; they must be the same")
    return opened


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise UsageError(f"model {name!r}: {value!r} is no number; write noised:0.02") from error


def _loaded(name: str, target: Subject) -> Subject:
    return load_subject(name, str(target.device), str(target.dtype).removeprefix("torch."))


def first_layers(target: Subject, count: int) -> Subject:
    """The target cut after ``count`` layers; its modules are shared, not copied."""
    total = target.model.config.get_text_config().num_hidden_layers
    if not 1 <= count <= total:
        raise UsageError(f"model layers:{count} of {target.name}: write a number from 1 to {total}")
    return kept_layers(target, range(count))


def noised(target: Subject, share: float, seed: int = 0) -> Subject:
    """A copy of the target whose weights are off by noise of ``share`` of their standard deviation."""
    model = copy.deepcopy(target.model)
    generator = torch.Generator(target.device).manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                noise = torch.randn(weight.shape, generator=generator, device=weight.device)
                weight += (share * weight.float().std() * noise).to(weight.dtype)
    return replace(target, name=f"{target.name}-noised{share:g}", model=model)


def own_parts(module: Any) -> Any:
    """A copy of a module that shares its parts but may exchange them."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def kept_layers(target: Subject, kept: Sequence[int]) -> Subject:
    """The target with these layers alone, in order, its norm and its head."""
    model = own_parts(target.model)
    body = own_parts(model.get_decoder())
    layers = []
    for place, index in enumerate(kept):
        layer = own_parts(body.layers[index])
        layer.self_attn = own_parts(layer.self_attn)
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
