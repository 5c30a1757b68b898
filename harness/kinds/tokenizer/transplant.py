"""Puts a new vocabulary on a trained model: rows of embeddings are copied or mixed, everything else is shared.

A token that both vocabularies hold (compared by bytes) keeps its row exactly; specials are matched by name, then by
role; all others are given to an initialiser, which makes input and output rows alike.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import Refused
from harness.kinds.tokenizer.initialise import Initialiser, Missing, fvt
from harness.kinds.tokenizer.vocabulary import Vocabulary, special_names
from harness.subjects.tokenizer import Tokenizer

NORM_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class TransplantReport:
    """How many new rows came from where, and quantiles of the row norms before and after (drift hurts the softmax).

    ``composed`` rows were made by the initialiser from what it knows of their tokens, ``fallback`` ones from nothing.
    """

    shared: int
    special: int
    composed: int
    fallback: int
    old_norms: tuple[float, ...]
    new_norms: tuple[float, ...]


def special_sources(old: Tokenizer, new: Tokenizer) -> dict[int, int]:
    """Old id of each new special id that has one: by name, then who begins and who ends a text."""
    old_names, new_names = special_names(old), special_names(new)
    found = {new.prefix_id: old.prefix_id} | dict(zip(new.eos_ids, old.eos_ids, strict=False))
    return found | {new_names[name]: old_names[name] for name in new_names.keys() & old_names.keys()}


@dataclass(frozen=True)
class Plan:
    """Old id of each new id that keeps its row, the new ids that need one made, and what is known of those."""

    kept: dict[int, int]
    special: int
    missing_ids: list[int]
    missing: Missing


def plan_rows(model: Any, old: Tokenizer, new: Tokenizer) -> Plan:
    """Which rows are copied and which are to be made, compared by bytes."""
    held, made = Vocabulary(old), Vocabulary(new)
    specials = special_sources(old, new)
    kept: dict[int, int] = {}
    for token_id, data in enumerate(made.tokens):
        if data is None:
            if token_id in specials:
                kept[token_id] = specials[token_id]
        elif token_id < len(held.tokens) and held.tokens[token_id] == data:
            kept[token_id] = token_id
        elif data in held.by_bytes:
            kept[token_id] = held.by_bytes[data]
    missing = [i for i in range(len(made.tokens)) if i not in kept]
    tokens = [made.tokens[i] for i in missing]
    shared = sorted({source for i, source in kept.items() if made.tokens[i] is not None})
    parts = [held.decompose(data) if data else [] for data in tokens]
    special = sum(made.tokens[i] is None for i in kept)
    return Plan(kept, special, missing, Missing(model, held, tokens, parts, shared))


def _twin(module: nn.Module) -> Any:
    """A shallow copy: the same parameters and children, in tables of its own."""
    made = copy.copy(module)
    for table in ("_parameters", "_modules", "_buffers"):
        setattr(made, table, dict(getattr(module, table)))
    return made


def replace_modules(model: nn.Module, changes: Mapping[nn.Module, nn.Module]) -> Any:
    """A model in which some modules are others; those on the way to them are copied, all others are shared."""
    twins: dict[str, Any] = {"": _twin(model)}
    for name, module in model.named_modules():
        if module not in changes:
            continue
        parts = name.split(".")
        for depth in range(1, len(parts)):
            path, above = ".".join(parts[:depth]), ".".join(parts[: depth - 1])
            if path not in twins:
                twins[path] = _twin(getattr(twins[above], parts[depth - 1]))
                setattr(twins[above], parts[depth - 1], twins[path])
        setattr(twins[".".join(parts[:-1])], parts[-1], changes[module])
    return twins[""]


def _configure(model: Any, new: Tokenizer) -> None:
    """Give a twin configurations of its own with the new vocabulary's figures."""
    model.config = copy.deepcopy(model.config)
    model.generation_config = copy.deepcopy(model.generation_config)
    text = model.config.get_text_config()
    text.vocab_size = new.vocab_size
    for holder in (text, model.generation_config):
        holder.bos_token_id = new.prefix_id
        holder.eos_token_id = list(new.eos_ids) or None
        holder.pad_token_id = None
    if hasattr(model, "vocab_size"):
        model.vocab_size = new.vocab_size


def _layers(model: Any, size: int) -> tuple[nn.Embedding, nn.Linear]:
    """The embedding and output layers; :class:`Refused` where they are not plain or hold too few rows."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(inputs, nn.Embedding) or not isinstance(outputs, nn.Linear):
        raise Refused(f"{type(model).__name__} has no plain embedding and output layers to put a new vocabulary on")
    if inputs.weight.shape[0] < size:
        raise Refused(f"the model has {inputs.weight.shape[0]} embedding rows, its tokenizer {size} ids")
    return inputs, outputs


def _tables(inputs: nn.Embedding, outputs: nn.Linear, size: int) -> list[Tensor]:
    """What the model holds of each of ``size`` tokens, as matrices: input rows, untied output rows, biases."""
    tables = [inputs.weight]
    if outputs.weight is not inputs.weight:
        tables.append(outputs.weight)
    if outputs.bias is not None:
        tables.append(outputs.bias[:, None])
    return [table.detach()[:size] for table in tables]


def _beside(tables: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.to(torch.promote_types(t.dtype, torch.float32)) for t in tables], 1)


def joined_rows(model: Any, size: int) -> Tensor:
    """All that a model holds of each of ``size`` tokens in one matrix, as an initialiser sees it."""
    return _beside(_tables(*_layers(model, size), size))


def new_rows(tables: Sequence[Tensor], plan: Plan, init: Initialiser) -> tuple[list[Tensor], int]:
    """The matrices over the new vocabulary, kept rows copied exactly, and the number of fallback rows."""
    made = init(plan.missing, _beside(tables)) if plan.missing_ids else None
    size = len(plan.kept) + len(plan.missing_ids)
    widths = [t.shape[1] for t in tables]
    parts = made.rows_ND.split(widths, 1) if made else [t[:0] for t in tables]
    fresh = []
    for table, part in zip(tables, parts, strict=True):
        rows = table.new_empty(size, table.shape[1])
        rows[list(plan.kept)] = table[list(plan.kept.values())]
        rows[plan.missing_ids] = part.to(table.dtype)
        fresh.append(rows)
    return fresh, made.fallback if made else 0


def transplant(model: Any, old: Tokenizer, new: Tokenizer, init: Initialiser = fvt) -> tuple[Any, TransplantReport]:
    """A model over the new vocabulary that shares its body with the given one, which is not touched.

    Works for tied and untied embeddings. Raises :class:`Refused` for a model without plain embedding and output layers.
    """
    inputs, outputs = _layers(model, old.vocab_size)
    plan = plan_rows(model, old, new)
    tables = _tables(inputs, outputs, old.vocab_size)
    fresh, fallback = new_rows(tables, plan, init)
    embed, head = _twin(inputs), _twin(outputs)
    embed.weight = nn.Parameter(fresh[0], requires_grad=inputs.weight.requires_grad)
    embed.num_embeddings, embed.padding_idx = new.vocab_size, None
    tied = outputs.weight is inputs.weight
    head.weight = embed.weight if tied else nn.Parameter(fresh[1], requires_grad=outputs.weight.requires_grad)
    head.out_features = new.vocab_size
    if outputs.bias is not None:
        head.bias = nn.Parameter(fresh[-1][:, 0].contiguous(), requires_grad=outputs.bias.requires_grad)
    made: Any = replace_modules(model, {inputs: embed, outputs: head})
    _configure(made, new)
    return made, TransplantReport(
        shared=len(plan.kept) - plan.special,
        special=plan.special,
        composed=len(plan.missing_ids) - fallback,
        fallback=fallback,
        old_norms=_norms(tables[0]),
        new_norms=_norms(embed.weight),
    )


def _norms(rows_VD: Any) -> tuple[float, ...]:
    norms = rows_VD.detach().float().norm(dim=-1)
    return tuple(norms.quantile(torch.tensor(NORM_QUANTILES, device=norms.device)).tolist())
