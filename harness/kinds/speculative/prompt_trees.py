"""Trees of guesses with prompt tokens between them, and how large to make them: the tables of ``ppd``.

A state is how many prompt outputs the last accepted node had. In state ``k`` the guesses for the next ``k`` tokens are
at hand; the tree holds candidates (paths of guesses' ranks) and under the root and under each candidate a chain of
prompt tokens, whose length is the next state should that node be the last accepted one. Pure functions of ``acc``:
``acc[d][r]`` is the chance that the guess of rank ``r`` for the token at depth ``d + 1`` is right.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod

import torch

from harness.kinds.speculative.widths import WidthCosts

Path = tuple[int, ...]
"""A candidate by the ranks of the guesses on the way to it; the root is the empty path."""
Acc = tuple[tuple[float, ...], ...]

REQUEST_ENDS = 1 / 256
"""Chance that a step is a request's last: the next one starts without guesses. It makes every state reachable."""
ROUNDS = 20
LIMITS = (*range(1, 17), 20, 24, 28, 32, 40, 48, 56, 64)
"""Widths that are tried where the width is chosen."""


@dataclass(frozen=True)
class PromptTree:
    """The root and candidates, each after its prefix, and the length of the prompt chain under each of them.

    As nodes: the root, the candidates in order, then the chains in the order of their owners.
    """

    paths: tuple[Path, ...]
    chains: tuple[int, ...]

    @property
    def width(self) -> int:
        """Nodes that are forwarded, the root included."""
        return len(self.paths) + sum(self.chains)

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """The parent of each node; -1 for the root."""
        place = {path: node for node, path in enumerate(self.paths)}
        parents = [-1, *(place[path[:-1]] for path in self.paths[1:])]
        for owner, chain in enumerate(self.chains):
            for link in range(chain):
                parents.append(len(parents) - 1 if link else owner)
        return tuple(parents)

    @cached_property
    def prompt_tokens(self) -> tuple[int, ...]:
        """Tokens of the chains: -1 for the first prompt token of a chain, -2 for the second, and so on."""
        return tuple(-1 - link for chain in self.chains for link in range(chain))

    def chain_under(self, node: int) -> range:
        """The prompt nodes under the root or a candidate."""
        first = len(self.paths) + sum(self.chains[:node])
        return range(first, first + self.chains[node])

    def within(self, room: int) -> PromptTree:
        """The tree without what is deeper than ``room`` tokens, or would only guess tokens that are."""
        kept = [node for node, path in enumerate(self.paths) if len(path) <= max(room, 0)]
        chains = (min(self.chains[node], max(room - len(self.paths[node]) - 1, 0)) for node in kept)
        return PromptTree(tuple(self.paths[node] for node in kept), tuple(chains))


def best_candidates(acc: Acc, depth: int, count: int) -> list[tuple[Path, float]]:
    """The ``count`` most valuable candidates up to ``depth``, the root first, with their chances of being accepted.

    A value is the product of ``acc`` on the way, so a prefix is never worth less; what is worth nothing is left out.
    """
    found: list[tuple[Path, float]] = []
    open_: list[tuple[float, Path]] = [(-1.0, ())]
    while open_ and len(found) <= count:
        negative, path = heapq.heappop(open_)
        found.append((path, -negative))
        if len(path) < depth:
            for rank, chance in enumerate(acc[len(path)]):
                if chance > 0:
                    heapq.heappush(open_, (negative * chance, (*path, rank)))
    return found


def last_chances(candidates: Sequence[tuple[Path, float]]) -> list[float]:
    """The chance of each node to be the last accepted one: its value less its children's. They sum to 1."""
    chances = {path: value for path, value in candidates}
    for path, value in candidates:
        if path:
            chances[path[:-1]] -= value
    return [max(chance, 0.0) for chance in chances.values()]


def trimmed_chains(chances: Sequence[float], worth: Sequence[float], room: int) -> tuple[int, ...]:
    """Chain lengths that sum to ``room`` at most: from full ones, the prompt whose loss matters least goes first.

    ``worth[j]`` is what it is worth to be in state ``j`` next. Prompts that are worth nothing go in any case.
    """
    longest = len(worth) - 1
    chains = [longest] * len(chances)

    def loss(node: int) -> float:
        return chances[node] * (worth[chains[node]] - worth[chains[node] - 1])

    heap = [(loss(node), -node) for node in range(len(chains))] if longest else []
    heapq.heapify(heap)
    excess = longest * len(chains) - room
    while heap and (excess > 0 or heap[0][0] <= 0):
        node = -heapq.heappop(heap)[1]
        excess -= 1
        chains[node] -= 1
        if chains[node]:
            heapq.heappush(heap, (loss(node), -node))
    return tuple(chains)


def valued(tree: PromptTree, acc: Acc) -> list[tuple[Path, float]]:
    """The nodes of a tree with their chances of being accepted."""
    return [(path, prod(acc[place][rank] for place, rank in enumerate(path))) for path in tree.paths]


def yield_of(tree: PromptTree, acc: Acc, worth: Sequence[float]) -> float:
    """Tokens that a step with this tree emits, and what the state after it is worth."""
    candidates = valued(tree, acc)
    later = sum(c * worth[length] for c, length in zip(last_chances(candidates), tree.chains, strict=True))
    return sum(value for _, value in candidates) + later


def best_tree(acc: Acc, state: int, limit: int, worth: Sequence[float]) -> PromptTree:
    """The tree of at most ``limit`` nodes that yields most: the most valuable candidates, as many as are best."""
    most = best_candidates(acc, state, limit - 1)
    trees = []
    for count in range(1, len(most) + 1):
        chains = trimmed_chains(last_chances(most[:count]), worth, limit - count)
        trees.append(PromptTree(tuple(path for path, _ in most[:count]), chains))
    return max(trees, key=lambda tree: yield_of(tree, acc, worth))


@dataclass(frozen=True)
class Chain:
    """The Markov chain over states under given trees: its stationary law, tokens a step, and each state's worth."""

    law: tuple[float, ...]
    tokens: float
    worth: tuple[float, ...]


def solve_chain(acc: Acc, trees: Sequence[PromptTree]) -> Chain:
    """Stationary law, tokens a step ``g`` and worth ``h``: ``h_k + g = tokens_k + sum_j T_kj h_j`` with ``h_0 = 0``."""
    count = len(trees)
    moves_KK = torch.zeros(count, count, dtype=torch.float64)
    tokens_K = torch.zeros(count, dtype=torch.float64)
    for state, tree in enumerate(trees):
        candidates = valued(tree, acc)
        tokens_K[state] = sum(value for _, value in candidates)
        for chance, length in zip(last_chances(candidates), tree.chains, strict=True):
            moves_KK[state, length] += (1 - REQUEST_ENDS) * chance
        moves_KK[state, 0] += REQUEST_ENDS
    # The unknowns are g in place of h_0, which is fixed, and the other worths.
    system_KK = torch.eye(count, dtype=torch.float64) - moves_KK
    system_KK[:, 0] = 1.0
    solved = torch.linalg.solve(system_KK, tokens_K)
    start_K = torch.zeros(count, dtype=torch.float64)
    start_K[0] = 1.0
    # The same matrix transposed: rows of the law's balance, the first replaced by its sum.
    law_K = torch.linalg.solve(system_KK.T, start_K)
    return Chain(tuple(law_K.tolist()), float(solved[0]), (0.0, *solved[1:].tolist()))


@lru_cache(maxsize=256)
def best_trees(acc: Acc, limit: int) -> tuple[PromptTree, ...]:
    """A tree of at most ``limit`` nodes for each state 0 .. n, such that a long text takes the fewest steps.

    Policy iteration: worth of the states under the trees, then better trees for this worth, until there are none. It
    starts with a state worth the tokens that its guesses would give next, which is the rule of the reference code.
    """
    states = range(len(acc) + 1)
    worth = [sum(value for _, value in best_candidates(acc, state, limit - 1)) for state in states]
    trees = [best_tree(acc, state, limit, worth) for state in states]
    for _ in range(ROUNDS):
        worth = list(solve_chain(acc, trees).worth)
        better = [best_tree(acc, state, limit, worth) for state in states]
        gains = [yield_of(new, acc, worth) - yield_of(old, acc, worth) for new, old in zip(better, trees, strict=True)]
        if max(gains) < 1e-9:
            break
        trees = [new if gain > 1e-9 else old for new, old, gain in zip(better, trees, gains, strict=True)]
    return tuple(trees)


def predicted_gain(acc: Acc, trees: Sequence[PromptTree], costs: WidthCosts) -> float:
    """Predicted speed-up over plain decoding: tokens a step over its cost, in plain steps."""
    chain = solve_chain(acc, trees)
    return chain.tokens / sum(share * costs(tree.width) for share, tree in zip(chain.law, trees, strict=True))


@lru_cache(maxsize=32)
def trees_that_pay(acc: Acc, costs: WidthCosts) -> tuple[PromptTree, ...]:
    """The trees of the width limit with the largest predicted gain; single roots where no drafting pays."""
    return max((best_trees(acc, limit) for limit in LIMITS), key=lambda trees: predicted_gain(acc, trees, costs))
