"""Pruning: same weights, fewer tokens kept in the cache or read from it."""

from harness.kinds.pruning.base import (
    EvictionMethod,
    LayerView,
    PruningMethod,
    column_sums,
    keep_count,
    rank_slots,
    window_attention,
)
from harness.kinds.pruning.observation import ObservationMethod
from harness.kinds.pruning.packed_keys import packed_keys
from harness.kinds.pruning.paging import PageMethod, best_pages, page_slots, page_summaries
from harness.kinds.pruning.selecting import QueryView, Selection, SelectionMethod, best_slots, group_queries, logits
from harness.subjects.grouped import gathered

__all__ = [
    "EvictionMethod",
    "LayerView",
    "ObservationMethod",
    "PageMethod",
    "PruningMethod",
    "QueryView",
    "Selection",
    "SelectionMethod",
    "best_pages",
    "best_slots",
    "column_sums",
    "gathered",
    "group_queries",
    "keep_count",
    "logits",
    "packed_keys",
    "page_slots",
    "page_summaries",
    "rank_slots",
    "window_attention",
]
