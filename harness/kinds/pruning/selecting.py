"""Methods that select: the whole cache stays, and each query of decoding reads the slots that matter to it.

Memory is not saved; bytes read are. The prompt is read densely, and so are scores of the tokens within it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from harness.kinds.method import Artifact, Workload
from harness.kinds.pruning.base import Budgeted
from harness.subjects.grouped import chunk_size
from harness.subjects.subject import Subject
from harness.subjects.views import QueryView, Selection

OWN = torch.finfo(torch.float32).max
"""The score of a query's own slot: above all, and finite."""


def group_queries(view: QueryView) -> Tensor:
    """Queries by key/value head, ``[B, G, R, T, D]`` with ``R`` heads a group."""
    grouped: Tensor = view.queries_BHTD.unflatten(1, (view.keys_BGND.shape[1], view.per_group))
    return grouped


def logits(queries_BGRTD: Tensor, keys_BGND: Tensor) -> Tensor:
    """Products of every query with its group's keys, ``[B, G, R, T, N]`` float32, not scaled."""
    batch, groups, per_group, num_queries, width = queries_BGRTD.shape
    rows = queries_BGRTD.reshape(batch, groups, per_group * num_queries, width)
    product = rows.new_empty(batch, groups, per_group * num_queries, keys_BGND.shape[2], dtype=torch.float32)
    size = chunk_size(rows, keys_BGND.shape[2])
    # Matrix by matrix: live slots are no contiguous batch, and the library would copy them first.
    for part, keys in zip(product.split(size, 3), keys_BGND.split(size, 2), strict=True):
        for row in range(batch):
            for group in range(groups):
                part[row, group].copy_(rows[row, group] @ keys[row, group].transpose(0, 1))
    return product.view(batch, groups, per_group, num_queries, keys_BGND.shape[2])


def best_slots(score_BSTN: Tensor, allowed: Tensor | None, keep_BT: Tensor) -> tuple[Tensor, Tensor | None]:
    """The ``keep_BT`` best allowed slots of each query, a query's own slot among them; index and validity.

    The last T slots are the queries' own. ``allowed`` is ``[B|1, 1|S, T, N]``.
    """
    num_queries, slots = score_BSTN.shape[2:]
    score_BSTN = score_BSTN.clone() if allowed is None else score_BSTN.masked_fill(~allowed, -torch.inf)
    query = torch.arange(num_queries, device=score_BSTN.device)
    score_BSTN[:, :, query, slots - num_queries + query] = OWN
    width = int(keep_BT.max())
    if bool((keep_BT == width).all()):
        return top_slots(score_BSTN, width), None
    best = score_BSTN.topk(width).indices
    place = torch.arange(width, device=score_BSTN.device)
    return best, (place < keep_BT[:, None, :, None]).expand_as(best)


FOLD = 32
"""Numbers that are folded into one to find a bound below which no best number lies."""


def top_slots(score: Tensor, width: int) -> Tensor:
    """The ``width`` best places of the last dimension, in no order."""
    best: Tensor
    if score.device.type != "cpu":
        best = score.topk(width, sorted=False).indices
        return best
    best = torch.stack([_top_of_row(row, width) for row in score.flatten(0, -2)])
    best = best.unflatten(0, score.shape[:-1])
    return best


def _top_of_row(score_N: Tensor, width: int) -> Tensor:
    folds = len(score_N) // FOLD
    if folds < 2 * width:
        return score_N.topk(width, sorted=False).indices
    # At least ``width`` numbers reach the least of the ``width`` highest maxima; sorting out the rest first is much
    # faster than the library's selection among all.
    maxima = score_N[: folds * FOLD].view(FOLD, folds).amax(0)
    bound = maxima.topk(width, sorted=False).values.amin()
    near = (score_N >= bound).nonzero()[:, 0]
    return near[score_N[near].topk(width, sorted=False).indices]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SelectionMethod(Budgeted):
    """Reads the best-scored slots; the budget counts every slot read, the query's own included.

    A subclass overrides :meth:`relevance` and says in :meth:`scored` what that reads, or overrides :meth:`choose`.
    Rows with padding are shown to it one by one, without their padding; ``by_row`` does so always.
    """

    by_row: ClassVar[bool] = False

    dense_layers: int = Field(0, ge=0, description="first layers that read everything")

    @property
    def least(self) -> int:
        """Slots that are read even where the budget is smaller."""
        return 1

    def relevance(self, view: QueryView, artifact: Artifact) -> Tensor:
        """Score of each slot for each query, ``[B, S, T, N]`` float32; ``S`` is 1 (one set for all heads), the
        key/value heads or the query heads. Slots that may not be read are masked later."""
        raise NotImplementedError(f"{self.card.id} overrides neither relevance nor choose")

    def scored(self, view: QueryView) -> float:
        """Part of the layer's key and value bytes that :meth:`relevance` reads: half for all keys in full."""
        return 0.5

    def choose(self, view: QueryView, keep_BT: Tensor, artifact: Artifact) -> Selection:
        """The ``keep_BT`` slots that each query reads."""
        index, valid = best_slots(self.relevance(view, artifact), view.allowed, keep_BT)
        return Selection(index, valid, self.scored(view))

    def select(self, view: QueryView, artifact: Artifact = None) -> Selection | None:
        """Slots to read, or None for all."""
        if view.phase == "prefill" or view.layer < self.dense_layers or self.unlimited:
            return None
        if view.allowed is None:
            available_BT = torch.full((len(view.queries_BHTD), 1), view.num_slots, device=view.keys_BGND.device)
        else:
            available_BT = view.allowed[:, 0].sum(-1).expand(len(view.queries_BHTD), -1)
        keep_BT = torch.minimum(self.budget(available_BT).clamp(min=1), available_BT)
        if bool((keep_BT == available_BT).all()):
            return None
        starts = first_slots(view)
        if not any(starts) and not (self.by_row and len(starts) > 1):
            return self.choose(view, keep_BT, artifact)
        rows = range(len(starts))
        chosen = [self.choose(row_view(view, r, starts[r]), keep_BT[r : r + 1], artifact) for r in rows]
        return joined(chosen, starts)

    def workloads(self, subject: Subject) -> Iterable[Workload]:
        """A decode step of one layer over a long cache, against reading all of it."""
        from harness.kinds.pruning.select_workloads import selection_workloads

        return selection_workloads(self.check_twin(), subject)

    def cache_options(self, subject: Subject, artifact: Artifact) -> dict[str, Any]:
        """A cache of which attention reads a part."""
        return {"select": partial(self.select, artifact=artifact)}


class SingleQueryMethod(SelectionMethod):
    """A selection that looks at one query of one row at a time. A subclass overrides :meth:`choose_one`.

    The tokens of one forward choose one after another, each as if it were decoded alone.
    """

    by_row = True

    def choose_one(self, view: QueryView, keep: int, artifact: Artifact) -> Selection:
        """The ``keep`` slots that the only query of the view reads; it may read all that the view holds."""
        raise NotImplementedError(f"{self.card.id} does not override choose_one")

    def choose(self, view: QueryView, keep_BT: Tensor, artifact: Artifact) -> Selection:
        """Each query's choice."""
        keeps: list[int] = keep_BT[0].tolist()
        views = single_queries(view)
        steps = [self.choose_one(alone, keep, artifact) for alone, keep in zip(views, keeps, strict=True)]
        return joined(steps, [0] * len(steps), dim=2)


def single_queries(view: QueryView) -> list[QueryView]:
    """A view for each query of a row without padding, as if it were decoded alone."""
    new, slots = view.queries_BHTD.shape[2], view.num_slots
    return [
        replace(
            view,
            queries_BHTD=view.queries_BHTD[:, :, query : query + 1],
            keys_BGND=view.keys_BGND[:, :, : slots - new + query + 1],
            allowed=None,
        )
        for query in range(new)
    ]


def one_by_one(view: QueryView, choose_one: Callable[[QueryView], Selection]) -> Selection:
    """Each query's own choice, of each row without its padding."""
    starts, rows = first_slots(view), []
    for row, start in enumerate(starts):
        steps = [choose_one(alone) for alone in single_queries(row_view(view, row, start))]
        rows.append(joined(steps, [0] * len(steps), dim=2))
    return joined(rows, starts)


def first_slots(view: QueryView) -> list[int]:
    """Padding on the left of each row."""
    if view.allowed is None:
        return [0] * len(view.queries_BHTD)
    leading_B = (~view.allowed[:, 0, 0]).long().cumprod(-1).sum(-1)
    starts: list[int] = leading_B.expand(len(view.queries_BHTD)).tolist()
    return starts


def row_view(view: QueryView, row: int, start: int) -> QueryView:
    """One row of a batch without its padding, with notes of its own."""
    allowed = view.allowed
    if allowed is not None:
        allowed = allowed[row if len(allowed) > 1 else 0][None, ..., start:]
    return replace(
        view,
        queries_BHTD=view.queries_BHTD[row : row + 1],
        keys_BGND=view.keys_BGND[row : row + 1, :, start:],
        allowed=None if allowed is None or bool(allowed.all()) else allowed,
        committed=view.committed - start,
        scratch=view.scratch.setdefault(f"row {row}", {}),
    )


def joined(chosen: Sequence[Selection], starts: Sequence[int], dim: int = 0) -> Selection:
    """Selections of single rows (or queries, ``dim`` 2) as one, moved to their ``starts`` and padded to the widest."""
    if len(chosen) == 1 and starts[0] == 0:
        return chosen[0]
    width = max(one.index_BSTK.shape[-1] for one in chosen)
    index, valid = [], []
    for one, start in zip(chosen, starts, strict=True):
        room = (0, width - one.index_BSTK.shape[-1])
        used = torch.ones_like(one.index_BSTK, dtype=torch.bool) if one.valid_BSTK is None else one.valid_BSTK
        index.append(F.pad(one.index_BSTK + start, room))
        valid.append(F.pad(used, room))
    every = torch.cat(valid, dim)
    scored = sum(one.scored for one in chosen) / len(chosen)
    return Selection(torch.cat(index, dim), None if bool(every.all()) else every, scored)
