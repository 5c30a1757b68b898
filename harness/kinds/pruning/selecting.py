"""Methods that select: the whole cache stays, and each query of decoding reads the slots that matter to it.

Memory is not saved; bytes read are. The prompt is read densely, and so are scores of the tokens within it.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from harness.kinds.method import Artifact
from harness.kinds.pruning.base import Budgeted
from harness.subjects.subject import Subject
from harness.subjects.views import QueryView, Selection

__all__ = ["QueryView", "Selection", "SelectionMethod", "best_slots", "group_queries", "logits"]

OWN = torch.finfo(torch.float32).max
"""The score of a query's own slot: above all, and finite."""


def group_queries(view: QueryView) -> Tensor:
    """Queries by key/value head, ``[B, G, R, T, D]`` with ``R`` heads a group."""
    return view.queries_BHTD.unflatten(1, (view.keys_BGND.shape[1], view.per_group))


def logits(queries_BGRTD: Tensor, keys_BGND: Tensor) -> Tensor:
    """Products of every query with its group's keys, ``[B, G, R, T, N]`` float32, not scaled."""
    batch, groups, per_group, num_queries, width = queries_BGRTD.shape
    rows = queries_BGRTD.reshape(batch, groups, per_group * num_queries, width)
    flat = zip(rows.flatten(0, 1), keys_BGND.flatten(0, 1), strict=True)
    # Matrix by matrix: live slots are no contiguous batch, and the library would copy them first.
    product: Tensor = torch.stack([(left @ right.transpose(0, 1)).float() for left, right in flat])
    return product.view(batch, groups, per_group, num_queries, keys_BGND.shape[2])


def best_slots(score_BSTN: Tensor, allowed: Tensor | None, keep_BT: Tensor) -> tuple[Tensor, Tensor | None]:
    """The ``keep_BT`` best allowed slots of each query, a query's own slot among them; index and validity.

    The last T slots are the queries' own. ``allowed`` is ``[B|1, 1|S, T, N]``.
    """
    num_queries, slots = score_BSTN.shape[2:]
    if allowed is not None:
        score_BSTN = score_BSTN.masked_fill(~allowed, -torch.inf)
    elif num_queries == 1:
        score_BSTN = score_BSTN.clone()
    query = torch.arange(num_queries, device=score_BSTN.device)
    score_BSTN[:, :, query, slots - num_queries + query] = OWN
    width = int(keep_BT.max())
    best = score_BSTN.topk(width, sorted=True)
    if bool((keep_BT == width).all()):
        return best.indices, None
    place = torch.arange(width, device=score_BSTN.device)
    return best.indices, (place < keep_BT[:, None, :, None]).expand_as(best.indices)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SelectionMethod(Budgeted):
    """Reads the best-scored slots; the budget counts every slot read, the query's own included.

    A subclass overrides :meth:`relevance` and says in :meth:`scored` what that reads, or overrides :meth:`select`.
    """

    dense_layers: int = Field(0, ge=0, description="first layers that read everything")

    def relevance(self, view: QueryView, artifact: Artifact) -> Tensor:
        """Score of each slot for each query, ``[B, S, T, N]`` float32; ``S`` is 1 (one set for all heads), the
        key/value heads or the query heads. Slots that may not be read are masked later."""
        raise NotImplementedError(f"{self.card.id} overrides neither relevance nor select")

    def scored(self, view: QueryView) -> float:
        """Part of the layer's key and value bytes that :meth:`relevance` reads: half for all keys in full."""
        return 0.5

    def select(self, view: QueryView, artifact: Artifact = None) -> Selection | None:
        """Slots to read, or None for all."""
        keep_BT = self.kept(view)
        if keep_BT is None:
            return None
        index, valid = best_slots(self.relevance(view, artifact), view.allowed, keep_BT)
        return Selection(index, valid, self.scored(view))

    def kept(self, view: QueryView) -> Tensor | None:
        """Slots that each query reads, ``[B, T]``; None where the layer is read in full."""
        if view.phase == "prefill" or view.layer < self.dense_layers or self.unlimited:
            return None
        if view.allowed is None:
            available = torch.full((len(view.queries_BHTD), 1), view.num_slots)
        else:
            available = view.allowed[:, 0].sum(-1).expand(len(view.queries_BHTD), -1)
        keep_BT = self.budget(available).clamp(min=1)
        return None if bool((keep_BT >= available).all()) else torch.minimum(keep_BT, available)

    def cache_options(self, subject: Subject, artifact: Artifact) -> dict[str, Any]:
        """A cache of which attention reads a part."""
        return {"select": lambda view: self.select(view, artifact)}
