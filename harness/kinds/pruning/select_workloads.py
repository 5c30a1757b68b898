"""Workloads of methods that select: one decode step of one layer over a long cache, against reading all of it.

Queries and keys are random, so that every method does its work and none is right: what is timed is the choice and the
attention over it, not the quality. Heads, device and type are the subject's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from harness.kinds.method import Workload
from harness.kinds.pruning.selecting import SelectionMethod
from harness.subjects.grouped import grouped_attention, quickest, selected_attention
from harness.subjects.subject import Subject
from harness.subjects.views import QueryView

LENGTHS = (2048, 8192, 32768)
TOKENS = 512
"""The budget where the method has none in tokens: a part of such lengths would be most of a cache."""


def long_layer(subject: Subject, slots: int) -> tuple[Tensor, Tensor, Tensor]:
    """A query and live keys and values of one layer; the cache has spare room, as it has while decoding."""
    config = subject.model.config.get_text_config()
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    generator = torch.Generator().manual_seed(slots)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(subject.device, subject.dtype)

    keys, values = (random(1, groups, slots + 64, width)[:, :, :slots] for _ in range(2))
    return random(1, heads, 1, width), keys, values


def selection_workloads(method: SelectionMethod, subject: Subject) -> Iterator[Workload]:
    """One at each length, of the layer after the dense ones."""
    method = replace(cast(Any, method), tokens=method.tokens or TOKENS)
    for slots in LENGTHS:
        yield _decode_attention(method, subject, slots)


def _decode_attention(method: SelectionMethod, subject: Subject, slots: int) -> Workload:
    def parts() -> tuple[tuple[Tensor, Tensor, Tensor], QueryView]:
        states = long_layer(subject, slots)
        scaling = states[0].shape[-1] ** -0.5
        layer = method.dense_layers
        return states, QueryView(layer, layer + 1, "decode", states[0], states[1], None, slots - 1, scaling, {})

    def make() -> Callable[[], Tensor]:
        (query, keys, values), view = parts()

        def step() -> Tensor:
            with torch.inference_mode():
                chosen = method.select(view)
                if chosen is None:
                    return grouped_attention(*quickest(query, keys, values), None, view.scaling, None)
                return selected_attention(query, keys, values, None, chosen, view.scaling, None)

        return step

    def reference() -> Callable[[], Tensor]:
        (query, keys, values), view = parts()

        def dense() -> Tensor:
            with torch.inference_mode():
                return grouped_attention(*quickest(query, keys, values), None, view.scaling, None)

        return dense

    (_, keys, _), view = parts()
    chosen = method.select(view)
    share = 1.0 if chosen is None else chosen.scored + read_share(chosen.index_BSTK, keys.shape[1], slots)
    return Workload(
        name=f"decode attention, {slots} slots",
        make=make,
        reference=reference,
        units={"tokens": 1},
        bytes_moved=share * 2 * keys.numel() * keys.element_size(),
        details={
            "slots": slots,
            "tokens": method.tokens,
            "bytes_read_share": round(share, 4),
            "bound": round(1 / share, 2),
        },
    )


def read_share(index_BSTK: Tensor, groups: int, slots: int) -> float:
    """Part of the keys and values that a selection reads; sets of single query heads read their group's anew."""
    sets = max(index_BSTK.shape[1], groups)
    return sets * index_BSTK.shape[-1] / (groups * slots)
