"""Items as unordered sets of vectors: the block mask, positions that a set shares, queries told in one forward."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.kinds.architecture.blocks import Blocks, initial_std


def set_mask(real_BL: Tensor, size: int) -> Tensor:
    """``[B, 1, T, T]`` with T = (L + 1) size: L items of ``size`` vectors each, then ``size`` queries.

    A vector sees itself and all vectors of earlier items; a query sees itself and all real items. So the order of an
    item's vectors says nothing, and no query sees another.
    """
    batch, length = real_BL.shape
    item_T = torch.arange(length + 1, device=real_BL.device).repeat_interleave(size)
    earlier_TT = item_T[None] < item_T[:, None]
    own_TT = torch.eye(len(item_T), dtype=torch.bool, device=real_BL.device)
    queries = torch.zeros(batch, 1, dtype=torch.bool, device=real_BL.device)
    real_BT = torch.cat([real_BL, queries], 1).repeat_interleave(size, 1)
    return (earlier_TT & real_BT[:, None] | own_TT)[:, None]


def set_places(real_BL: Tensor, size: int) -> Tensor:
    """``[B, T]``: all vectors of an item have its number; the queries have that of the item to come."""
    length = real_BL.shape[1]
    number_BL = torch.arange(length, device=real_BL.device).expand_as(real_BL)
    return torch.cat([number_BL, real_BL.sum(1, keepdim=True)], 1).repeat_interleave(size, 1)


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with SiLU between."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class SetRecommender(nn.Module):
    """Reads (n + 1) vectors an item and answers with (n + 1) queries: s_q(i) = <o_q, e_{q,i}>.

    ``collaborative``: a frozen table ``[I, W]`` behind a learnt linear map, or None for a learnt table. ``n`` 0 is a
    model with one vector an item.
    """

    beta: Tensor

    def __init__(self, features_IF: Tensor, n: int, blocks: Blocks, collaborative: Tensor | None) -> None:
        super().__init__()
        count, features = features_IF.shape
        width = blocks.norm.normalized_shape[0]
        self.n, self.blocks = n, blocks
        self.register_buffer("features_IF", features_IF)
        self.register_buffer("beta", torch.tensor(0.5))
        self.register_buffer("frozen", collaborative)
        if collaborative is None:
            self.table: nn.Module = nn.Embedding(count, width)
            nn.init.normal_(self.table.weight, std=initial_std(width))
        else:
            self.table = nn.Linear(collaborative.shape[1], width)
        if n:
            self.encoder, self.decoder = mlp(features, 4 * width, n * width), mlp(n * width, 4 * width, features)
        self.queries = nn.Parameter(torch.empty(n + 1, width).normal_(std=initial_std(width)))

    def item_vectors(self) -> Tensor:
        """``[I, n + 1, D]``, the collaborative one first."""
        frozen: Any = self.frozen
        table: Any = self.table
        first_ID: Tensor = table.weight if frozen is None else table(frozen)
        if not self.n:
            return first_ID[:, None]
        return torch.cat([first_ID[:, None], self.encoder(self.features_IF).view(len(first_ID), self.n, -1)], 1)

    def answers(self, vectors_BLQD: Tensor, real_BL: Tensor) -> Tensor:
        """What each query has found, ``[B, Q, D]``, in one forward."""
        size = len(self.queries)
        queries = self.queries.expand(len(vectors_BLQD), 1, -1, -1).to(vectors_BLQD.dtype)
        x_BTD = torch.cat([vectors_BLQD, queries], 1).flatten(1, 2)
        return self.blocks(x_BTD, mask=set_mask(real_BL, size), place_BT=set_places(real_BL, size))[:, -size:]  # type: ignore[no-any-return]

    def query_scores(self, history_BL: Tensor) -> Tensor:
        """``[B, Q, I]``; item 0 is padding."""
        vectors_IQD = self.item_vectors()
        answers_BQD = self.answers(vectors_IQD[history_BL], history_BL > 0)
        return torch.einsum("bqd,iqd->bqi", answers_BQD, vectors_IQD)

    def scores(self, history_BL: Tensor) -> Tensor:
        """``[B, I]``: the queries weighted by (1 - beta, beta, ..., beta)."""
        return weighted(self.query_scores(history_BL), float(self.beta))

    def loss(self, history_BL: Tensor, target_B: Tensor, warm_I: Tensor, alpha: float) -> Tensor:
        """Mean over queries of the cross-entropy over warm items, plus alpha times the features' reconstruction."""
        scores_BQI = self.query_scores(history_BL).masked_fill(~warm_I, -torch.inf)
        told = F.cross_entropy(scores_BQI.transpose(1, 2).float(), target_B[:, None].expand(-1, scores_BQI.shape[1]))
        if not self.n:
            return told
        features_IF: Any = self.features_IF
        again_IF = self.decoder(self.encoder(features_IF[1:]))
        return told + alpha * F.mse_loss(again_IF, features_IF[1:])


def weighted(scores_BQI: Tensor, beta: float) -> Tensor:
    """``[B, I]``: (1 - beta) times the first query's scores plus beta times each other's; a single query's own."""
    first_BI, others_BI = scores_BQI[:, 0], scores_BQI[:, 1:].sum(1)
    return first_BI if scores_BQI.shape[1] == 1 else (1 - beta) * first_BI + beta * others_BI


def best_beta(scores_BQI: Tensor, target_B: Tensor, grid: Sequence[float]) -> float:
    """The weight with the best recall, then NDCG; the first of equals."""
    from harness.kinds.architecture.interactions import ndcg, ranks, recall

    found = [ranks(weighted(scores_BQI, beta), target_B) for beta in grid]
    return max(zip(grid, found, strict=True), key=lambda pair: (recall(pair[1]), ndcg(pair[1])))[0]
