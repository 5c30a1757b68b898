"""The best shape of a draft tree, by dynamic programming over how often the b-th child of a node is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from harness.kinds.speculative.widths import WidthCosts

Chances = tuple[float, ...]
Shape = tuple["Shape", ...]
"""A tree as the tuple of its children's shapes, the likeliest first."""


@lru_cache(maxsize=200_000)
def best_tree(chances: Chances, size: int, depth: int) -> tuple[float, Shape]:
    """Expected emitted tokens and shape of the best tree of at most ``size`` nodes, root included, and ``depth``."""
    if size == 1 or depth == 0:
        return 1.0, ()
    gain, shape = _best_children(chances, size - 1, depth - 1, 0)
    return 1.0 + gain, shape


@lru_cache(maxsize=200_000)
def _best_children(chances: Chances, nodes: int, depth: int, rank: int) -> tuple[float, Shape]:
    """Best use of at most ``nodes`` nodes for the children from ``rank`` on."""
    if nodes == 0 or rank == len(chances):
        return 0.0, ()
    best: tuple[float, Shape] = (0.0, ())
    for taken in range(1, nodes + 1):
        value, shape = best_tree(chances, taken, depth)
        rest, others = _best_children(chances, nodes - taken, depth, rank + 1)
        gain = chances[rank] * value + rest
        if gain > best[0] + 1e-12:
            best = gain, (shape, *others)
    return best


def plan(chances: Chances, costs: WidthCosts, level_price: float, sizes: Sequence[int], max_depth: int) -> Shape:
    """The shape with the least cost for an expected token; ``level_price`` is that of a draft forward."""
    _, size, depth = min(
        ((costs(m) + depth * level_price) / best_tree(chances, m, depth)[0], m, depth)
        for m in sizes
        for depth in range(1, max_depth + 1)
    )
    return best_tree(chances, size, depth)[1]
