"""Puts a new vocabulary on a trained model: rows of embeddings are copied or mixed, everything else is shared.

A token that both vocabularies hold (compared by bytes) keeps its row exactly; specials are matched by name, then by
role; any other token gets the mean of the rows of its parts under the old tokenizer ("fast vocabulary transfer",
arXiv:2402.09977); a token without known parts gets the mean row. Input and output rows are mixed by the same weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import Refused
from harness.kinds.tokenizer.vocabulary import Vocabulary, special_names
from harness.subjects.tokenizer import Tokenizer

NORM_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class TransplantReport:
    """How many new rows came from where, and quantiles of the row norms before and after (drift hurts the softmax)."""

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


def row_sources(old: Tokenizer, new: Tokenizer) -> tuple[list[list[int]], dict[str, int]]:
    """Old ids whose rows make up each new row (empty: none known), and the number of rows by origin."""
    held = Vocabulary(old)
    specials = special_sources(old, new)
    sources: list[list[int]] = []
    counts = dict.fromkeys(("shared", "special", "composed", "fallback"), 0)
    for token_id, data in enumerate(Vocabulary(new).tokens):
        if data is None:
            kind, parts = "special", [specials[token_id]] if token_id in specials else []
        elif token_id < len(held.tokens) and held.tokens[token_id] == data:
            kind, parts = "shared", [token_id]
        elif data in held.by_bytes:
            kind, parts = "shared", [held.by_bytes[data]]
        else:
            kind, parts = "composed", held.decompose(data)
        counts[kind if parts else "fallback"] += 1
        sources.append(parts)
    return sources, counts


def mix_rows(rows_VD: Tensor, sources: Sequence[Sequence[int]]) -> Tensor:
    """Means of the named rows ``[len(sources), D]``; a single source is copied exactly, none gives the mean row."""
    flat = torch.tensor([i for parts in sources for i in parts], dtype=torch.long, device=rows_VD.device)
    lengths = torch.tensor([len(parts) for parts in sources], device=rows_VD.device)
    wide = rows_VD.to(torch.promote_types(rows_VD.dtype, torch.float32))
    mixed = F.embedding_bag(flat, wide, lengths.cumsum(0) - lengths, mode="mean")
    mixed[lengths == 0] = wide.mean(0)
    return mixed.to(rows_VD.dtype)


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


def _new_parameter(old: Tensor, sources: Sequence[Sequence[int]]) -> nn.Parameter:
    with torch.no_grad():
        rows = old if old.dim() == 2 else old[:, None]
        mixed = mix_rows(rows.detach(), sources)
    return nn.Parameter(mixed if old.dim() == 2 else mixed[:, 0], requires_grad=old.requires_grad)


def transplant(model: Any, old: Tokenizer, new: Tokenizer) -> tuple[Any, TransplantReport]:
    """A model over the new vocabulary that shares its body with the given one, which is not touched.

    Works for tied and untied embeddings. Raises :class:`Refused` for a model without plain embedding and output layers.
    """
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(inputs, nn.Embedding) or not isinstance(outputs, nn.Linear):
        raise Refused(f"{type(model).__name__} has no plain embedding and output layers to put a new vocabulary on")
    if inputs.weight.shape[0] < old.vocab_size:
        raise Refused(f"the model has {inputs.weight.shape[0]} embedding rows, its tokenizer {old.vocab_size} ids")
    sources, counts = row_sources(old, new)
    embed, head = _twin(inputs), _twin(outputs)
    embed.weight = _new_parameter(inputs.weight, sources)
    embed.num_embeddings, embed.padding_idx = new.vocab_size, None
    head.weight = embed.weight if outputs.weight is inputs.weight else _new_parameter(outputs.weight, sources)
    head.out_features = new.vocab_size
    if outputs.bias is not None:
        head.bias = _new_parameter(outputs.bias, sources)
    made: Any = replace_modules(model, {inputs: embed, outputs: head})
    _configure(made, new)
    return made, TransplantReport(
        **counts, old_norms=_norms(inputs.weight[: old.vocab_size]), new_norms=_norms(embed.weight)
    )


def _norms(rows_VD: Any) -> tuple[float, ...]:
    norms = rows_VD.detach().float().norm(dim=-1)
    return tuple(norms.quantile(torch.tensor(NORM_QUANTILES, device=norms.device)).tolist())
