"""Pruning: same weights, fewer tokens kept in the cache."""

from harness.kinds.pruning.base import LayerView, PruningMethod, keep_count, rank_slots, window_attention

__all__ = ["LayerView", "PruningMethod", "keep_count", "rank_slots", "window_attention"]
