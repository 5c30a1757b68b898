"""A draft tree that grows from a draft model: children drawn or ranked, several nodes forwarded at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.kinds.speculative.base import DraftTree
from harness.kinds.speculative.drafts import DraftModel
from harness.subjects.sampling import Sampler


class GrowingTree:
    """Starts as the root; :meth:`law` of a node may be read once it was grown.

    Greedy requests rank a node's children by the draft's probability; under sampling children are drawn, and each
    remembers the law that it was drawn from.
    """

    def __init__(self, model: DraftModel, history: Sequence[int], sampler: Sampler, row: int) -> None:
        self.model, self.history, self.sampler, self.row = model, list(history), sampler, row
        self.tokens, self.parents, self.depths = [history[-1]], [-1], [0]
        self.draws: list[list[int]] = [[]]
        self.drawn_from: list[Tensor] = []
        self._after: dict[int, Tensor] = {}

    def law(self, node: int) -> Tensor:
        """The draft's law ``[V]`` after a node; for a greedy request its probabilities, which rank the children."""
        if node == 0 and 0 not in self._after:
            self._note(0, self.model.root(self.history))
        return self._after[node]

    def _note(self, node: int, logits_V: Tensor) -> None:
        text = [*self.history, *self.path(node)]
        greedy = self.sampler.greedy
        self._after[node] = (
            self.sampler.processed(logits_V, text).softmax(-1) if greedy else self.sampler.probabilities(logits_V, text)
        )

    def path(self, node: int) -> list[int]:
        """Tokens from below the root down to a node."""
        found: list[int] = []
        while node:
            found.append(self.tokens[node])
            node = self.parents[node]
        return found[::-1]

    def grow(self, nodes: Sequence[int]) -> None:
        """Forward nodes through the draft, so that they may have children. One forward for all."""
        if nodes:
            tokens, parents = [self.tokens[n] for n in nodes], [self.parents[n] for n in nodes]
            for node, logits_V in zip(nodes, self.model.grow(tokens, parents, nodes), strict=True):
                self._note(node, logits_V)

    def add(self, parent: int, token: int, law_V: Tensor) -> int:
        """A child; one with the same token is the same node, drawn once more."""
        same = [child for child in self.draws[parent] if self.tokens[child] == token]
        if same:
            self.draws[parent].append(same[0])
            return same[0]
        self.tokens.append(token)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1)
        self.draws.append([])
        self.drawn_from.append(law_V)
        self.draws[parent].append(len(self.tokens) - 1)
        return len(self.tokens) - 1

    def draw(self, parent: int, law_V: Tensor) -> int:
        """A child drawn from a law."""
        return self.add(parent, self.sampler.draw(law_V, self.row), law_V)

    def best(self, parent: int, count: int) -> list[int]:
        """The ``count`` likeliest children."""
        law_V = self.law(parent)
        return [self.add(parent, token, law_V) for token in law_V.topk(min(count, len(law_V))).indices.tolist()]

    def drawn(self, parent: int, count: int) -> list[int]:
        """``count`` independent draws, equal ones merged; the likeliest children of a greedy request."""
        if self.sampler.greedy:
            return self.best(parent, count)
        law_V = self.law(parent)
        return list(dict.fromkeys(self.draw(parent, law_V) for _ in range(count)))

    def finished(self) -> DraftTree:
        """The tree, with laws where it was drawn."""
        parents, tokens = tuple(self.parents), tuple(self.tokens)
        if self.sampler.greedy or len(tokens) == 1:
            return DraftTree(tokens, parents)
        laws_NV = torch.stack([self.drawn_from[0], *self.drawn_from])
        return DraftTree(tokens, parents, laws_NV, tuple(map(tuple, self.draws)))


def taken_out(law_V: Tensor, token: int) -> Tensor:
    """The law's probabilities but for one token's, not normalised."""
    rest_V = law_V.clone()
    rest_V[token] = 0
    return rest_V


def without(law_V: Tensor, token: int) -> Tensor | None:
    """The law once a token is taken out; None where nothing is left."""
    rest_V = taken_out(law_V, token)
    total = rest_V.sum()
    return rest_V / total if total > 0 else None


def draw_without_replacement(tree: GrowingTree, parent: int, count: int) -> list[int]:
    """``count`` different children drawn one after the other; the likeliest ones of a greedy request."""
    if tree.sampler.greedy:
        return tree.best(parent, count)
    law_V: Tensor | None = tree.law(parent)
    children: list[int] = []
    while law_V is not None and len(children) < count:
        children.append(tree.draw(parent, law_V))
        law_V = without(law_V, tree.tokens[children[-1]])
    return children
