"""Interface of the kind ``speculative``: a method supplies a drafter, the kind verifies and commits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.kinds.method import Artifact, Check, Method
from harness.kinds.speculative.widths import FLAT, WidthCosts, width_costs
from harness.subjects.sampling import Sampler
from harness.subjects.subject import KV_VIEWS, Subject


@dataclass(frozen=True)
class DraftTree:
    """Drafted tokens in topological order. Node 0 is the root: the last emitted token, not yet in the cache.

    ``parents[0]`` is -1 and ``parents[i] < i``. Where tokens were drawn at random, ``laws_NV`` holds for each node the
    law it was drawn from (the root's row is not used), and ``draws`` each node's children in the order in which they
    were drawn, a child as often as it was drawn. A node with a token below 0 is forwarded but never accepted: token
    ``-1 - i`` stands for row ``i`` of the input embeddings ``soft_MD``. ``notes`` are the drafter's own of each node.
    ``promise`` is how many tokens a step with this tree is expected to emit (None: the drafter cannot say).
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    laws_NV: Tensor | None = None
    draws: tuple[tuple[int, ...], ...] | None = None
    soft_MD: Tensor | None = None
    notes: tuple[Any, ...] = ()
    promise: float | None = None

    @cached_property
    def depth(self) -> tuple[int, ...]:
        """Distance of each node from the root."""
        depth = [0] * len(self.parents)
        for node in range(1, len(depth)):
            depth[node] = depth[self.parents[node]] + 1
        return tuple(depth)

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Children of each node, in order."""
        children: list[list[int]] = [[] for _ in self.parents]
        for node in range(1, len(self.parents)):
            children[self.parents[node]].append(node)
        return tuple(map(tuple, children))

    @property
    def is_chain(self) -> bool:
        """Whether every node hangs on the one before."""
        return all(parent == node - 1 for node, parent in enumerate(self.parents))

    def path_to(self, node: int) -> list[int]:
        """Nodes from the root to ``node``."""
        path = []
        while node >= 0:
            path.append(node)
            node = self.parents[node]
        return path[::-1]


def ancestors(parents: Sequence[int], device: torch.device) -> Tensor:
    """``[N, N]``, True where the column is the row itself or one of its ancestors."""
    seen = torch.eye(len(parents), dtype=torch.bool, device=device)
    for node in range(1, len(parents)):
        seen[node] |= seen[parents[node]]
    return seen


@lru_cache(maxsize=256)
def tree_shape(parents: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Mask ``[N, N]`` and depth ``[N]`` of a tree's shape; methods use few shapes, so they are made once."""
    depth = DraftTree((0,) * len(parents), parents).depth
    return ancestors(parents, device), torch.tensor(depth, device=device)


def chain(root: int, drafted: Sequence[int]) -> DraftTree:
    """A tree that is one line of tokens after the root."""
    return DraftTree((root, *drafted), tuple(range(-1, len(drafted))))


@dataclass(frozen=True)
class Step:
    """What one verification did: the tree, the target's logits ``[N, V]``, and the accepted nodes, root first."""

    tree: DraftTree
    logits_NV: Tensor
    path: tuple[int, ...]


class Drafter:
    """Proposes what may come next. One drafter serves all requests of an open subject.

    A subclass overrides :meth:`propose`, and the rest where it learns or costs something.
    """

    costs: WidthCosts = FLAT
    """What widths cost the target in this request, in plain decode steps; set before :meth:`start`."""
    price: float = 0.0
    """What the last proposal cost, in plain decode steps of the target."""
    forward_s: float = 0.0
    """Time spent in forwards of a draft model since the request began."""
    free: ClassVar[bool] = False
    """Whether a proposal costs no forward, so that it may be made only to be compared with what plain steps emit."""

    def start(self, prompt: Sequence[int], sampler: Sampler, row: int) -> None:
        """A new request begins; ``sampler`` is the target's rule, from whose stream ``row`` a drafter may draw."""

    def propose(self, history: Sequence[int], room: int) -> DraftTree:
        """A tree whose root is ``history[-1]``; deeper than ``room`` tokens is wasted."""
        raise NotImplementedError(f"{type(self).__name__} does not override propose")

    def judge(self, tree: DraftTree, node: int, right: int | None) -> None:
        """Learn which child of ``node``, once reached, was right, or that none was. Of a tree that was verified, or of
        one that was only compared with plain steps."""

    def observe(self, step: Step) -> None:
        """Learn from what the target said."""

    def snapshot(self) -> Any:
        """What has been learnt so far, kept apart from further learning; None where nothing outlives a request."""

    def restore(self, state: Any) -> None:
        """Go back to a snapshot, so that timed blocks start from the same state."""


Rule = Callable[[Tensor, Sequence[int], Tensor], tuple[list[float], Tensor]]
"""Verification at one node, from the target's law ``[V]``, the drawn tokens and the laws ``[k, V]`` they came from:
the chance of accepting each one once those before it were refused, and the law of the token where all are refused."""


class SpeculativeMethod(Method):
    """A lossless decoder made of a drafter. A subclass overrides :meth:`drafter`.

    ``rule`` is how sampled drafts are verified; None is token matching, right for every drafter.
    """

    changes: ClassVar[frozenset[str]] = frozenset({"generate"})
    replaces: ClassVar[frozenset[str]] = frozenset({"decoder"})
    rule: ClassVar[Rule | None] = None
    width_field: ClassVar[str] = ""

    @property
    def adaptive(self) -> bool:
        """Whether the width follows this machine, and plain decoding takes over where drafting does not pay.

        It does where the field named by ``width_field`` was left empty: only a width that was asked for is held to.
        """
        return bool(self.width_field) and not getattr(self, self.width_field)

    def check_twin(self) -> SpeculativeMethod:
        """The method as it is checked: without an artifact, which no invariant may depend on."""
        return self

    def drafter(self, subject: Subject, artifact: Artifact) -> Drafter:
        """The drafter for this subject."""
        raise NotImplementedError(f"{self.card.id} does not override drafter")

    @contextmanager
    def apply(self, subject: Subject, artifact: Artifact = None) -> Iterator[Subject]:
        """The subject with a decoder that drafts and verifies."""
        from harness.kinds.speculative.loop import SpeculativeDecoder
        from harness.kinds.speculative.pace import Pace, WatchedPace

        subject.require(KV_VIEWS, self.card.id)
        drafter = self.drafter(subject, artifact)
        pace = (WatchedPace() if drafter.free else Pace()) if self.adaptive else None
        yield replace(subject, decoder=SpeculativeDecoder(drafter, width_costs(subject), type(self).rule, pace))

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The kind's invariants."""
        from harness.kinds.speculative.checks import speculative_checks

        return speculative_checks(self, subject)
