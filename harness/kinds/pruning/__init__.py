"""Pruning: same weights, fewer tokens kept in the cache or read from it."""

from harness.kinds.pruning.base import (
    EvictionMethod,
    PruningMethod,
    column_sums,
    keep_count,
    keep_where,
    rank_slots,
    window_attention,
)
from harness.kinds.pruning.observation import ObservationMethod
from harness.kinds.pruning.packed_keys import packed_keys
from harness.kinds.pruning.paging import PageMethod, page_summaries
from harness.kinds.pruning.selecting import (
    SelectionMethod,
    SingleQueryMethod,
    best_slots,
    group_queries,
    logits,
    top_slots,
)
from harness.subjects.grouped import gathered
from harness.subjects.views import LayerView, QueryView, Selection

__all__ = [
    "EvictionMethod",
    "LayerView",
    "ObservationMethod",
    "PageMethod",
    "PruningMethod",
    "QueryView",
    "Selection",
    "SelectionMethod",
    "SingleQueryMethod",
    "best_slots",
    "column_sums",
    "gathered",
    "group_queries",
    "keep_count",
    "keep_where",
    "logits",
    "packed_keys",
    "page_summaries",
    "rank_slots",
    "top_slots",
    "window_attention",
]
