"""A low-dimensional scorer of keys, trained to give the attention of the full heads.

``weights [H, 2, C, D]`` are the projections of queries and keys; a score is the product of both, scaled as the full
logits are. States are those before the rotary embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.kinds.pruning.base import by_query_head, window_attention
from harness.kinds.pruning.calibration import watch_prompts
from harness.kinds.pruning.growing import with_room
from harness.kinds.pruning.unrotated import Rotation
from harness.subjects.subject import Subject
from harness.subjects.views import LayerView, QueryView

QUERIES = 0.25
"""Part of a text's queries that is trained on."""


@dataclass(frozen=True)
class Indexer:
    """Retrieval heads of one layer with their projections, ``[R, C, D]``, and the groups whose keys they read."""

    heads_R: Tensor
    group_R: Tensor
    query_RCD: Tensor
    key_RCD: Tensor

    def keys(self, view: QueryView, rotation: Rotation) -> Tensor:
        """Projected keys of all live slots, ``[R, N, C]``; those of committed slots are made once."""
        have = view.scratch.get("indexed_rows", 0)
        fresh = rotation.undone(view.keys_BGND[:, :, have:], have)[:, self.group_R] @ self.key_RCD.mT
        buffer = with_room(view.scratch.get("indexed"), fresh, have, view.num_slots)
        buffer[:, :, have : view.num_slots] = fresh
        view.scratch.update(indexed=buffer, indexed_rows=view.committed)
        return buffer[0, :, : view.num_slots]

    def scores(self, view: QueryView, rotation: Rotation) -> Tensor:
        """``[R, N]`` for the view's only query."""
        query_RD = rotation.undone(view.queries_BHTD[:, self.heads_R], view.num_slots - 1)[0, :, 0]
        low_RC = torch.einsum("rcd,rd->rc", self.query_RCD, query_RD)
        return torch.einsum("rnc,rc->rn", self.keys(view, rotation), low_RC) * view.scaling


def layer_indexers(heads_LH: Tensor, weights_R2CD: Tensor, per_group: int) -> list[Indexer]:
    """An indexer for each layer; the heads' weights follow each other layer by layer."""
    indexers, start = [], 0
    for heads_H in heads_LH.to(weights_R2CD.device):
        heads_R = heads_H.nonzero()[:, 0]
        own = weights_R2CD[start : start + len(heads_R)]
        start += len(heads_R)
        indexers.append(Indexer(heads_R, heads_R // per_group, *(own.unbind(1) if len(own) else (own, own))))
    return indexers


@dataclass(frozen=True)
class Pairs:
    """One text's queries and keys of some heads, and the attention between them."""

    query_HTD: Tensor
    key_HND: Tensor
    attention_HTN: Tensor
    visible_TN: Tensor
    scaling: float

    def scores(self, weights_H2CD: Tensor) -> Tensor:
        """``[H, T, N]``; what a query may not see is minus infinity."""
        low_HTC = self.query_HTD @ weights_H2CD[:, 0].mT
        score_HTN = low_HTC @ (self.key_HND @ weights_H2CD[:, 1].mT).mT * self.scaling
        return score_HTN.masked_fill(~self.visible_TN, -torch.inf)

    def divergence(self, weights_H2CD: Tensor) -> Tensor:
        """KL(attention || softmax of the scores), mean over heads and queries, nats."""
        logp_HTN = self.scores(weights_H2CD).log_softmax(-1).masked_fill(~self.visible_TN, 0.0)
        known_HTN = self.attention_HTN.clamp(min=1e-12).log()
        return (self.attention_HTN * (known_HTN - logp_HTN)).sum(-1).mean()


def seen_pairs(
    subject: Subject, texts: Sequence[list[int]], heads_LH: Tensor, rotation: Rotation, seed: int
) -> list[Pairs]:
    """What the chosen heads of all layers, one after another, saw in each text; none where no head is chosen."""
    parts: list[list[Pairs]] = [[] for _ in texts]
    generator = torch.Generator().manual_seed(seed)
    for text, found in zip(texts, parts, strict=True):
        count = math.ceil(QUERIES * len(text))
        sample_T = torch.randperm(len(text), generator=generator)[:count].to(subject.device)

        def look(view: LayerView, found: list[Pairs] = found, sample_T: Tensor = sample_T) -> None:
            heads = heads_LH[view.layer].nonzero()[:, 0].to(subject.device)
            if len(heads):
                found.append(_pairs(by_query_head(view), heads, sample_T, rotation))

        watch_prompts(subject, [text], look)
    return [_joined(found) for found in parts if found]


def _pairs(view: LayerView, heads_R: Tensor, sample_T: Tensor, rotation: Rotation) -> Pairs:
    place = torch.arange(view.num_slots, device=sample_T.device)
    return Pairs(
        rotation.undone(view.queries_BHTD, 0)[0, heads_R][:, sample_T],
        rotation.undone(view.keys_BHND, 0)[0, heads_R],
        window_attention(view, view.num_slots)[0, heads_R][:, sample_T],
        place[None] <= sample_T[:, None],
        view.scaling,
    )


def _joined(found: Sequence[Pairs]) -> Pairs:
    return Pairs(
        torch.cat([one.query_HTD for one in found]),
        torch.cat([one.key_HND for one in found]),
        torch.cat([one.attention_HTN for one in found]),
        found[0].visible_TN,
        found[0].scaling,
    )


def first_guess(pairs: Sequence[Pairs], channels: int) -> Tensor:
    """The best bilinear form of rank ``channels`` for the products of independent queries and keys."""
    roots = []
    for name in ("query_HTD", "key_HND"):
        states = torch.cat([getattr(one, name) for one in pairs], 1)
        size, basis = torch.linalg.eigh(states.mT @ states / states.shape[1])
        roots.append((size.clamp(min=1e-6).sqrt(), basis))
    (query_size, query_basis), (key_size, key_basis) = roots
    middle = query_size[..., None] * (query_basis.mT @ key_basis) * key_size[:, None]
    left, strength, right = torch.linalg.svd(middle)
    root = strength[:, :channels, None].sqrt()
    queries = root * left.mT[:, :channels] / query_size[:, None] @ query_basis.mT
    keys = root * right[:, :channels] / key_size[:, None] @ key_basis.mT
    return torch.stack([queries, keys], 1)


def fit(weights_H2CD: Tensor, pairs: Sequence[Pairs], steps: int, lr: float) -> tuple[Tensor, Tensor]:
    """Trained projections and the loss of every step; the texts take turns."""
    weights = weights_H2CD.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=lr)
    losses = []
    for step in range(steps if pairs else 0):
        warm = min(1.0, (step + 1) / max(1, steps // 6))
        for group in optimizer.param_groups:
            group["lr"] = lr * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = pairs[step % len(pairs)].divergence(weights)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    return weights.detach(), torch.tensor(losses)
