"""Dynamic chunking: a router that cuts rows into chunks, a main network over chunks, and the way back to all places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from harness.errors import Refused
from harness.kinds.architecture.blocks import Blocks, initial_std
from harness.kinds.architecture.ragged import kept_places, picked
from harness.kinds.architecture.stepwise import MainCounts, StepModel

SUREST = 1 - 1e-4
"""A boundary's probability is kept this far from 0 and 1 where chunks are smoothed."""


def boundary_probability(query_BTD: Tensor, key_BTD: Tensor) -> Tensor:
    """``[B, T]``: (1 - cos(query of the place before, key of the place)) / 2."""
    similar_BT = F.cosine_similarity(query_BTD.float(), key_BTD.float(), dim=-1)
    return ((1 - similar_BT) / 2).clamp(0, 1)


def smoothed(z_BMD: Tensor, p_BM: Tensor, before_B1D: Tensor) -> Tensor:
    """s_k = P_k z_k + (1 - P_k) s_{k-1}, all k at once; ``before`` is s_{-1}. ``[B, M, D]``.

    s_k = sum_j P_j exp(L_k - L_j) z_j + exp(L_k) s_{-1} with L the running sum of log(1 - P), in float64 as it grows.
    """
    sure_BM = p_BM.double().clamp(1 - SUREST, SUREST)
    left_BM = torch.log1p(-sure_BM).cumsum(1)
    decay_BMM = (left_BM[:, :, None] - left_BM[:, None, :]).tril().exp().tril()
    weight_BMM = (decay_BMM * sure_BM[:, None, :]).to(z_BMD.dtype)
    return weight_BMM @ z_BMD + left_BM.exp()[..., None].to(z_BMD.dtype) * before_B1D


def straight_through(c_BT: Tensor) -> Tensor:
    """1, with the gradient of ``c``."""
    return 1 + (c_BT - c_BT.detach())


@dataclass(frozen=True)
class Route:
    """Boundary probabilities and boundaries of one stage, ``[B, T]``, and which places are real."""

    p_BT: Tensor
    b_BT: Tensor
    real_BT: Tensor

    def ratio_loss(self, target: float) -> Tensor:
        """N/(N-1) ((N-1) F G + (1-F)(1-G)) with F the share of boundaries, G the mean probability; 1 at F = G = 1/N."""
        count = self.real_BT.sum()
        share = self.b_BT.sum() / count
        mean = (self.p_BT * self.real_BT).sum() / count
        return target / (target - 1) * ((target - 1) * share * mean + (1 - share) * (1 - mean))


@dataclass
class StageState:
    """What one stage carries of a single row: caches, the last encoded place ``[1, 1, D]``, the last smoothed chunk."""

    inner: Any
    encoder: DynamicCache = field(default_factory=DynamicCache)
    decoder: DynamicCache = field(default_factory=DynamicCache)
    last: Tensor | None = None
    chunk: Tensor | None = None


class Stage(nn.Module):
    """Encoder, router, ``main`` over the kept places, smoothing, decoder. ``main`` may be a stage itself."""

    def __init__(self, encoder: Blocks, main: Stage | Blocks, decoder: Blocks, width: int, main_width: int) -> None:
        super().__init__()
        if main_width < width:
            raise Refused(f"a main network of width {main_width} is narrower than its encoder's {width}")
        self.encoder, self.main, self.decoder = encoder, main, decoder
        self.query, self.key = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.residual = nn.Linear(width, width)
        self.extra = nn.Parameter(torch.zeros(main_width - width))
        nn.init.eye_(self.query.weight)
        nn.init.eye_(self.key.weight)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def begin(self) -> StageState:
        """The state before any place."""
        return StageState(self.main.begin() if isinstance(self.main, Stage) else DynamicCache())

    def route(self, h_BTD: Tensor, last_B1D: Tensor | None) -> Tensor:
        """Boundary probabilities ``[B, T]``; a row's first place is a boundary."""
        before_BTD = torch.cat([h_BTD[:, :1] if last_B1D is None else last_B1D, h_BTD[:, :-1]], 1)
        p_BT = boundary_probability(self.query(before_BTD), self.key(h_BTD))
        return torch.cat([torch.ones_like(p_BT[:, :1]), p_BT[:, 1:]], 1) if last_B1D is None else p_BT

    def forward(self, x_BTD: Tensor, real_BT: Tensor, state: StageState | None = None) -> tuple[Tensor, list[Route]]:
        """``[B, T, D]`` and the routes of this stage and those inside; with a state, one row goes on from there."""
        h_BTD = self.encoder(x_BTD, cache=state and state.encoder)
        p_BT = self.route(h_BTD, state.last if state else None)
        route = Route(p_BT, (p_BT > 0.5) & real_BT, real_BT)
        carried = state.chunk if state is not None and state.chunk is not None else torch.zeros_like(h_BTD[:, :1])
        place_BM, held_BM = kept_places(route.b_BT)
        chunks_BMD, inner = carried, list[Route]()
        if place_BM.shape[1]:
            z_BMD, inner = self._main(picked(h_BTD, place_BM), held_BM, state)
            chunks_BMD = torch.cat([carried, smoothed(z_BMD, p_BT.gather(1, place_BM), carried)], 1)
        up_BTD = picked(chunks_BMD, route.b_BT.cumsum(1))
        sure_BT = straight_through(torch.where(route.b_BT, p_BT, 1 - p_BT))
        y_BTD = up_BTD * sure_BT[..., None].to(up_BTD.dtype) + self.residual(h_BTD)
        if state is not None:
            state.last, state.chunk = h_BTD[:, -1:], up_BTD[:, -1:]
        return self.decoder(y_BTD, cache=state and state.decoder), [route, *inner]

    def _main(self, kept_BMD: Tensor, held_BM: Tensor, state: StageState | None) -> tuple[Tensor, list[Route]]:
        """The main network's vectors, widened by a learnt constant before and cut back after."""
        wide_BMW = torch.cat([kept_BMD, self.extra.to(kept_BMD.dtype).expand(*kept_BMD.shape[:2], -1)], -1)
        inner = state and state.inner
        if isinstance(self.main, Stage):
            z_BMW, routes = self.main(wide_BMW, held_BM, inner)
        else:
            z_BMW, routes = self.main(wide_BMW, cache=inner), []
        return z_BMW[..., : kept_BMD.shape[-1]], routes


@dataclass
class ChunkState:
    """A row's stages, and what the innermost network did."""

    stage: StageState
    main: MainCounts = field(default_factory=MainCounts)

    def count(self) -> None:
        """Note whether the innermost network ran."""
        inner = self.stage.inner
        while isinstance(inner, StageState):
            inner = inner.inner
        self.main.forwards += inner.get_seq_length() > self.main.slots
        self.main.slots = inner.get_seq_length()


class ChunkedModel(StepModel):
    """Ids in, stages, ids out; the head is the table of ids."""

    def __init__(self, vocab_size: int, width: int, stage: Stage) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width)
        self.stage = stage
        nn.init.normal_(self.embed.weight, std=initial_std(width))

    def routed(self, ids_BT: Tensor, real_BT: Tensor, state: StageState | None = None) -> tuple[Tensor, list[Route]]:
        """Logits ``[B, T, V]`` of the next id, and each stage's route."""
        out_BTD, routes = self.stage(self.embed(ids_BT), real_BT, state)
        return F.linear(out_BTD, self.embed.weight), routes

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits ``[B, T, V]`` of the next id."""
        return self.routed(ids_BT, torch.ones_like(ids_BT, dtype=torch.bool))[0]

    def begin(self) -> ChunkState:
        """The state before any id."""
        return ChunkState(self.stage.begin())

    def read(self, ids: Sequence[int], state: ChunkState) -> Tensor:
        """Read some ids; the innermost network runs where one of them begins a chunk. Logits ``[V]`` of the next."""
        ids_1T = torch.tensor([list(ids)], device=self.embed.weight.device)
        logits_1TV, _ = self.routed(ids_1T, torch.ones_like(ids_1T, dtype=torch.bool), state.stage)
        state.count()
        return logits_1TV[0, -1]
