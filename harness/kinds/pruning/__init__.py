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
from harness.kinds.pruning.selecting import QueryView, Selection, SelectionMethod, group_queries, logits

__all__ = [
    "EvictionMethod",
    "LayerView",
    "ObservationMethod",
    "PruningMethod",
    "QueryView",
    "Selection",
    "SelectionMethod",
    "column_sums",
    "group_queries",
    "keep_count",
    "logits",
    "rank_slots",
    "window_attention",
]
