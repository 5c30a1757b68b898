"""Workloads of pruning by accumulated attention: the importance alone, and a stack of attention layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.kinds.kernel.group_workloads import ATTENTION_ERROR, HeadShape
from harness.kinds.kernel.importance import causal_logits
from harness.kinds.kernel.regions import region_forward
from harness.kinds.method import Workload
from harness.subjects.subject import Subject

Importance = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""``(query [B,H,T,D], key [B,G,N,D], lse [B,H,T], start [B], scale) -> score [B, N]``."""
Survivors = Callable[[Tensor, Tensor, float, int], Tensor]
"""``(score [N], place [N], share, tokens) -> places that survive``."""


def cascade(
    layers: Sequence[Sequence[Tensor]],
    schedule: Sequence[float],
    scale: float,
    importance: Importance,
    survivors: Survivors,
) -> list[Tensor]:
    """Outputs ``[1, H, T_l, D]`` of attention layers on the tokens that survive, and the places they end with.

    ``layers`` holds query, key and value of all tokens for each layer.
    """
    tokens, device = layers[0][0].shape[2], layers[0][0].device
    place, score = torch.arange(tokens, device=device), torch.zeros(tokens, device=device)
    start, outputs = torch.zeros(1, dtype=torch.long, device=device), []
    for share, states in zip(schedule, layers, strict=True):
        place = survivors(score[place], place, share, tokens) if share < 1 else place
        query, key, value = (x if len(place) == tokens else x[:, :, place] for x in states)
        out, lse = region_forward(query, key, value, True, scale)
        score[place] += importance(query, key, lse, start, scale)[0]
        outputs.append(out)
    return [*outputs, place]


def written_out(query: Tensor, key: Tensor, value: Tensor, scale: float) -> list[Tensor]:
    """Output and importance of one layer from its whole matrix of probabilities."""
    start = torch.zeros(len(query), dtype=torch.long, device=query.device)
    weight = causal_logits(query, key, start, scale).softmax(-1)
    repeated = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
    return [(weight @ repeated.float()).to(query.dtype), weight.sum((1, 2))]


def cascade_workloads(
    subject: Subject, size: Mapping[str, int], schedule: Sequence[float], importance: Importance, survivors: Survivors
) -> Iterator[Workload]:
    """One layer's attention with its importance, and all layers against dense ones without."""
    shape, tokens = HeadShape.of(subject), size["tokens"]
    scale, start = shape.width**-0.5, torch.zeros(1, dtype=torch.long, device=subject.device)

    def layer() -> Callable[[], list[Tensor]]:
        query, key, value, _ = shape.inputs(subject, tokens)

        def run() -> list[Tensor]:
            out, lse = region_forward(query, key, value, True, scale)
            return [out, importance(query, key, lse, start, scale)]

        return run

    def whole_matrix() -> Callable[[], list[Tensor]]:
        query, key, value, _ = shape.inputs(subject, tokens)
        return lambda: written_out(query, key, value, scale)

    def stack() -> Callable[[], list[Tensor]]:
        layers = [shape.inputs(subject, tokens)[:3]] * size["layers"]
        return lambda: cascade(layers, schedule, scale, importance, survivors)

    def dense() -> Callable[[], list[Tensor]]:
        query, key, value, _ = shape.inputs(subject, tokens)
        attention = F.scaled_dot_product_attention
        return lambda: [
            attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True) for _ in range(size["layers"])
        ]

    pairs = [round(share * tokens) ** 2 / 2 for share in schedule]
    details = {"schedule": list(schedule), "pairs_share": round(sum(pairs) / (len(pairs) * tokens**2 / 2), 4)}
    units = {"tokens": float(tokens)}
    yield Workload(
        name=f"importance, {tokens} tokens",
        make=layer,
        reference=whole_matrix,
        max_error=ATTENTION_ERROR[subject.dtype],
        units=units,
        # Products for the output (two) and once more for the probabilities.
        flops=6.0 * shape.heads * shape.width * tokens * (tokens + 1) / 2,
        details=details,
    )
    yield Workload(
        name=f"{size['layers']} layers, {tokens} tokens", make=stack, reference=dense, units=units, details=details
    )
