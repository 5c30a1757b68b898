"""Methods that select whole pages of slots by a summary of each page's keys, kept up to date as the cache grows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from harness.kinds.method import Artifact
from harness.kinds.pruning.growing import with_room
from harness.kinds.pruning.selecting import OWN, SelectionMethod
from harness.subjects.views import QueryView, Selection

Summary = Callable[[Tensor], Tensor]
"""Keys of pages ``[B, G, P, page, D]`` to what is kept of each page, ``[B, G, P, C]``."""


def page_summaries(view: QueryView, page: int, summary: Summary, count: int | None = None) -> Tensor:
    """Summaries of the first ``count`` pages, all by default, ``[B, G, P, C]``; the last page may be shorter.

    Full pages of committed slots are made once; a buffer that grows by half holds them.
    """
    keys, slots = view.keys_BGND, view.num_slots
    count = -(-slots // page) if count is None else count
    held, have = view.scratch.get("pages"), view.scratch.get("num_pages", 0)
    full = min(view.committed // page, count)
    example = held if held is not None else summary(keys[:, :, None, :1])
    view.scratch["pages"] = held = with_room(held, example, have, count)
    if full > have:
        held[:, :, have:full] = summary(keys[:, :, have * page : full * page].unflatten(2, (-1, page)))
        view.scratch["num_pages"] = have = full
    for number in range(have, count):
        held[:, :, number : number + 1] = summary(keys[:, :, None, number * page : (number + 1) * page])
    made: Tensor = held[:, :, :count]
    return made


def best_pages(score_BSTP: Tensor, num_slots: int, page: int, count_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The ``count_BT`` best pages of each query, its own page among them: index ``[B, S, T, M]`` and validity.

    The last T slots are the queries' own; pages that begin after a query are not its to choose.
    """
    num_queries, pages = score_BSTP.shape[2:]
    query = torch.arange(num_queries, device=score_BSTP.device)
    own_T = (num_slots - num_queries + query) // page
    score_BSTP = score_BSTP.masked_fill(torch.arange(pages, device=score_BSTP.device) > own_T[:, None], -torch.inf)
    score_BSTP[:, :, query, own_T] = OWN
    best = score_BSTP.topk(min(pages, int(count_BT.max())))
    place = torch.arange(best.indices.shape[-1], device=score_BSTP.device)
    return best.indices, (place < count_BT[:, None, :, None]) & best.values.isfinite()


def page_slots(index_BSTM: Tensor, valid_BSTM: Tensor, num_slots: int, page: int) -> tuple[Tensor, Tensor | None]:
    """The slots of pages, ``[B, S, T, M * page]``, and which of them exist (None: all)."""
    place = torch.arange(page, device=index_BSTM.device)
    slots = (index_BSTM[..., None] * page + place).flatten(-2)
    valid = valid_BSTM.repeat_interleave(page, -1) & (slots < num_slots)
    return slots.clamp(max=num_slots - 1), None if bool(valid.all()) else valid


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PageMethod(SelectionMethod):
    """Reads the best pages in full. A subclass overrides :meth:`summary` and :meth:`page_scores`."""

    page: int = Field(16, ge=1, description="slots of a page")

    @property
    def least(self) -> int:
        """A page."""
        return self.page

    def summary(self, keys_BGPSD: Tensor) -> Tensor:
        """What is kept of each page, ``[B, G, P, C]``."""
        raise NotImplementedError(f"{self.card.id} does not override summary")

    def page_scores(self, view: QueryView, summary_BGPC: Tensor) -> Tensor:
        """Score of each page for each query, ``[B, S, T, P]``."""
        raise NotImplementedError(f"{self.card.id} does not override page_scores")

    def choose(self, view: QueryView, keep_BT: Tensor, artifact: Artifact) -> Selection:
        """The pages that fit the budget, one at least."""
        summary = page_summaries(view, self.page, self.summary)
        count_BT = (keep_BT // self.page).clamp(min=1)
        pages, found = best_pages(self.page_scores(view, summary), view.num_slots, self.page, count_BT)
        index, valid = page_slots(pages, found, view.num_slots, self.page)
        return Selection(index, valid, self.scored_bytes(view, summary))

    def scored_bytes(self, view: QueryView, summary_BGPC: Tensor) -> float:
        """Part of the layer's bytes that the summaries are."""
        return summary_BGPC.shape[2] * summary_BGPC.shape[3] / (2 * view.num_slots * view.keys_BGND.shape[3])
