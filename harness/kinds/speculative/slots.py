"""Growing a tree where the draft's own probability says that verification will come: the slots of DySpec.

A slot is a place for one more child: the node, the law left after its elder siblings, and the chance that verification
comes to it. Whether a slot is drawn is settled before the draw: dropping drawn tokens would bend the output's law.
"""

from __future__ import annotations

import heapq

import torch

from harness.kinds.speculative.growing import GrowingTree, taken_out, without


def draw_slot(tree: GrowingTree, node: int, law_V: torch.Tensor, value: float) -> tuple[int, float, float]:
    """One child of a slot, and the values of its own slot and of the sibling slot.

    Under sampling ``law_V`` is the law after the elder siblings; of a greedy request it is what they have left of the
    draft's probabilities, not normalised, and the k-th child's value is v p(child).
    """
    if tree.sampler.greedy:
        token = int(law_V.argmax())
        chance = float(law_V[token])
        return tree.add(node, token, law_V), value * chance, value
    child = tree.draw(node, law_V)
    chance = float(law_V[tree.tokens[child]])
    return child, value * chance, value * (1 - chance)


def left_over(tree: GrowingTree, law_V: torch.Tensor, child: int) -> torch.Tensor | None:
    """What is left of a slot's law for the next sibling."""
    if not tree.sampler.greedy:
        return without(law_V, tree.tokens[child])
    rest_V = taken_out(law_V, tree.tokens[child])
    return rest_V if rest_V.sum() > 0 else None


def promise(tree: GrowingTree, law_V: torch.Tensor, value: float) -> float:
    """The value by which a slot is judged before its draw: reaching it, or for a greedy request its best child."""
    return value * float(law_V.max()) if tree.sampler.greedy else value


def grow_by_threshold(tree: GrowingTree, threshold: float, most: int, max_depth: int) -> None:
    """Levels of all slots above the threshold, while nodes are left."""
    frontier = [(0, 1.0)]
    for depth in range(max_depth):
        if depth:
            tree.grow([node for node, _ in frontier])
        level = []
        for node, reached in frontier:
            law_V: torch.Tensor | None = tree.law(node)
            value = reached
            while law_V is not None and len(tree.tokens) <= most and promise(tree, law_V, value) > threshold:
                child, below, value = draw_slot(tree, node, law_V, value)
                law_V = left_over(tree, law_V, child)
                level.append((child, below))
        frontier = [(node, value) for node, value in level if value > threshold]
        if not frontier:
            break


def grow_by_heap(tree: GrowingTree, most: int, max_depth: int) -> list[float]:
    """The slot of highest value first, until ``most`` nodes are drawn; returns the values in that order."""
    heap: list[tuple[float, int, int, float, torch.Tensor]] = []
    order, taken = 0, []

    def push(node: int, law_V: torch.Tensor | None, value: float) -> None:
        nonlocal order
        if law_V is not None:
            heapq.heappush(heap, (-promise(tree, law_V, value), order, node, value, law_V))
            order += 1

    push(0, tree.law(0), 1.0)
    while heap and len(tree.tokens) <= most:
        negative, _, node, value, law_V = heapq.heappop(heap)
        taken.append(-negative)
        child, below, beside = draw_slot(tree, node, law_V, value)
        push(node, left_over(tree, law_V, child), beside)
        if tree.depths[child] < max_depth and len(tree.tokens) <= most:
            tree.grow([child])
            push(child, tree.law(child), below)
    return taken
