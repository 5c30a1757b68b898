"""Interface of the kind ``pruning``: a method scores the slots of a layer, and the best are kept.

Everything else (rotary positions after eviction, grouped heads, left padding, freeing memory, restoring the model)
is done here and in the cache, once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from harness.kinds.method import Artifact, Check, Method
from harness.subjects.subject import KV_VIEWS, Subject
from harness.subjects.views import Drop, Keep, LayerView

PROMPT_CAUSALITY = "no token of the prompt sees a later one"
"""The check that a method leaves out where later tokens decide which earlier ones are read on."""


def keep_count(keep_ratio: float, length_B: Tensor) -> Tensor:
    """Slots to keep of each row's ``length_B``: ``max(1, floor(keep_ratio * n + 1e-9))``."""
    return (keep_ratio * length_B.double() + 1e-9).floor().long().clamp(min=1)


def rank_slots(score_BHN: Tensor, valid_BHN: Tensor | None, keep_B: Tensor) -> Keep | None:
    """The ``keep_B`` best slots of each head, ascending; ties go to the earlier slot. None where all stay.

    Rows that keep fewer than the widest are padded on the left with invalid slots.
    """
    _batch, _heads, slots = score_BHN.shape
    real_BHN = torch.ones_like(score_BHN, dtype=torch.bool) if valid_BHN is None else valid_BHN.expand_as(score_BHN)
    available_B = real_BHN[:, 0].sum(-1)
    keep_B = torch.minimum(keep_B, available_B)
    if bool((keep_B == slots).all()):
        return None
    order = score_BHN.float().masked_fill(~real_BHN, float("-inf")).argsort(dim=-1, descending=True, stable=True)
    width = int(keep_B.max())
    chosen = order[..., :width]
    used = torch.arange(width, device=score_BHN.device)[None, None] < keep_B[:, None, None]
    # Unused places sort to the front as slot -1, then point at slot 0 and are marked invalid.
    ascending = chosen.masked_fill(~used, -1).sort(-1).values
    valid = None if bool(used.all()) else (ascending >= 0)[:, :1]
    return ascending.clamp(min=0), valid


def lowest_slots(score_BHN: Tensor, valid_BHN: Tensor | None, count: int) -> Drop:
    """The ``count`` real slots of each head with the lowest scores, one after another; ties go to the later slot."""
    finite = score_BHN.float().clamp(max=torch.finfo(torch.float32).max).flip(-1)
    if valid_BHN is not None:
        finite = finite.masked_fill(~valid_BHN.flip(-1), torch.inf)
    lowest = []
    for _ in range(count):
        lowest.append(finite.argmin(-1, keepdim=True))
        finite = finite.scatter(-1, lowest[-1], torch.inf)
    return Drop(score_BHN.shape[-1] - 1 - torch.cat(lowest, -1))


def keep_where(stays_BHN: Tensor) -> Keep | None:
    """The slots that stay where heads keep different numbers of them, padded to the longest; None where all stay."""
    if bool(stays_BHN.all()):
        return None
    width = int(stays_BHN.sum(-1).max())
    # Sorted by staying, then by place: those that stay come last, in their order.
    index_BHK = stays_BHN.int().argsort(dim=-1, stable=True)[..., -width:]
    return index_BHK, stays_BHN.gather(2, index_BHK)


def window_attention(view: LayerView, window: int) -> Tensor:
    """Attention rows of the prompt's last ``window`` queries, averaged over each group's heads, ``[B, G, W, N]``.

    Rows of padding are zero; the window's own rows are causal.
    """
    queries = view.queries_BHTD[:, :, -window:]
    batch, heads, rows, width = queries.shape
    groups = view.keys_BHND.shape[1]
    shaped = queries.reshape(batch, groups, heads // groups, rows, width).float()
    logits = shaped @ view.keys_BHND.float().transpose(2, 3).unsqueeze(2) * view.scaling
    place = torch.arange(view.num_slots, device=logits.device)
    allowed = place[None] <= place[-rows:, None]
    if view.valid_BHN is not None:
        allowed = allowed & view.valid_BHN[:, :, None, None, :]
        real_rows = view.valid_BHN[:, :, None, -rows:, None]
    weights = logits.masked_fill(~allowed, torch.finfo(logits.dtype).min).softmax(-1)
    if view.valid_BHN is not None:
        weights = weights * real_rows
    return weights.mean(2)


def by_query_head(view: LayerView) -> LayerView:
    """The view with its keys repeated, so that every query head is a group of its own."""
    per_group = view.queries_BHTD.shape[1] // view.keys_BHND.shape[1]
    return replace(view, keys_BHND=view.keys_BHND.repeat_interleave(per_group, 1))


def column_sums(view: LayerView, tile: int = 256) -> Tensor:
    """Attention that each slot gets from all new queries, averaged over each group's heads, ``[B, G, N]`` float32."""
    new = view.queries_BHTD.shape[2]
    total_BGN = view.queries_BHTD.new_zeros(view.keys_BHND.shape[:3], dtype=torch.float32)
    for start in range(0, new, tile):
        stop = min(new, start + tile)
        # The slots up to the tile's last query: what a plain view of a shorter text would hold.
        seen = view.num_slots - new + stop
        part = replace(
            view,
            queries_BHTD=view.queries_BHTD[:, :, start:stop],
            keys_BHND=view.keys_BHND[:, :, :seen],
            valid_BHN=None if view.valid_BHN is None else view.valid_BHN[:, :, :seen],
        )
        total_BGN[:, :, :seen] += window_attention(part, stop - start).sum(2)
    return total_BGN


class PruningMethod(Method):
    """The subject with another cache; the model itself is not touched. A subclass says what the cache is made with."""

    replaces: ClassVar[frozenset[str]] = frozenset({"cache"})

    def cache_options(self, subject: Subject, artifact: Artifact) -> dict[str, Any]:
        """Arguments of :class:`harness.subjects.cache.KVCache`; nothing is pruned without any."""
        return {}

    def check_twin(self) -> Self:
        """The method as it is checked: without an artifact, which no invariant may depend on."""
        return self

    @contextmanager
    def apply(self, subject: Subject, artifact: Artifact = None) -> Iterator[Subject]:
        """The subject with a pruned cache."""
        subject.require(KV_VIEWS, self.card.id)
        base = subject.new_cache
        assert isinstance(base, functools.partial)
        yield replace(subject, new_cache=functools.partial(base, **self.cache_options(subject, artifact)))

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The kind's invariants."""
        from harness.kinds.pruning.checks import pruning_checks

        return pruning_checks(self, subject)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Budgeted(PruningMethod):
    """A method with a budget, as a part of the tokens or in tokens; always-kept slots count."""

    keep_ratio: float = Field(0.5, gt=0, le=1, description="part of the tokens kept")
    tokens: int = Field(0, ge=0, description="tokens kept, whatever the length; 0: keep_ratio of them")

    @property
    def unlimited(self) -> bool:
        """Whether nothing is ever dropped."""
        return self.tokens == 0 and self.keep_ratio == 1

    def budget(self, length_B: Tensor) -> Tensor:
        """Slots to keep of ``length_B`` tokens."""
        return length_B.clamp(max=self.tokens) if self.tokens else keep_count(self.keep_ratio, length_B)


class EvictionMethod(Budgeted):
    """Keeps the best-scored slots of every layer and head, once after the prompt or after every step.

    A subclass overrides :meth:`scores`, or :meth:`evict` where a budget is not enough to say what stays.
    ``while_decoding``: the budget found at the prompt's end is held while decoding too.
    """

    while_decoding: ClassVar[bool] = False

    def scores(self, view: LayerView) -> Tensor:
        """Importance of each slot, ``[B, H, N]`` over key/value heads; ``inf`` is always kept. Padding is masked."""
        raise NotImplementedError(f"{self.card.id} overrides neither scores nor evict")

    def evict(self, view: LayerView) -> Keep | Drop | None:
        """The slots to keep after the prompt, None for all; later one to drop for each that came."""
        if self.unlimited:
            return None
        if view.phase == "decode":
            return lowest_slots(self.scores(view), view.valid_BHN, view.queries_BHTD.shape[2])
        return rank_slots(self.scores(view), view.valid_BHN, self.budget(view.prompt_B))

    def cache_options(self, subject: Subject, artifact: Artifact) -> dict[str, Any]:
        """A cache that evicts."""
        return {"evict": self.evict, "evict_while_decoding": self.while_decoding}
