"""Interface of the kind ``pruning``: a method scores the slots of a layer, and the best are kept.

Everything else (rotary positions after eviction, grouped heads, left padding, freeing memory, restoring the model)
is done here and in the cache, once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from harness.kinds.method import Artifact, Check, Method
from harness.subjects.cache import Keep, KVCache, LayerView
from harness.subjects.subject import KV_VIEWS, Subject

__all__ = ["LayerView", "PruningMethod", "keep_count", "rank_slots", "window_attention"]


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


class PruningMethod(Method):
    """Keeps the best-scored slots of every layer and head, once after the prompt or after every step.

    A subclass has a field ``keep_ratio`` (part of the prompt's tokens kept, in (0, 1]; always-kept slots count) and
    overrides :meth:`scores`, or :meth:`evict` where a budget is not enough to say what stays.
    ``while_decoding``: the budget found at the prompt's end is held while decoding too.
    """

    replaces: ClassVar[frozenset[str]] = frozenset({"cache"})
    while_decoding: ClassVar[bool] = False
    keep_ratio: float

    def scores(self, view: LayerView) -> Tensor:
        """Importance of each slot, ``[B, H, N]`` over key/value heads; ``inf`` is always kept. Padding is masked."""
        raise NotImplementedError(f"{self.card.id} overrides neither scores nor evict")

    def evict(self, view: LayerView) -> Keep | None:
        """The slots to keep, or None for all."""
        return rank_slots(self.scores(view), view.valid_BHN, keep_count(self.keep_ratio, view.prompt_B))

    @contextmanager
    def apply(self, subject: Subject, artifact: Artifact = None) -> Iterator[Subject]:
        """The subject with a pruned cache; the model itself is not touched."""
        subject.require(KV_VIEWS, self.card.id)
        yield replace(subject, new_cache=self._cache_factory(subject))

    def _cache_factory(self, subject: Subject) -> functools.partial[KVCache]:
        base = subject.new_cache
        assert isinstance(base, functools.partial)
        return functools.partial(base, evict=self.evict, evict_while_decoding=self.while_decoding)

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The kind's invariants."""
        from harness.kinds.pruning.checks import pruning_checks

        return pruning_checks(self, subject)
