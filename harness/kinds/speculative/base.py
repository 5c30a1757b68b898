"""Interface of the kind ``speculative``: a method supplies a drafter, the kind verifies and commits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from harness.kinds.method import Artifact, Check, Method
from harness.subjects.subject import KV_VIEWS, Subject


@dataclass(frozen=True)
class DraftTree:
    """Drafted tokens in topological order. Node 0 is the root: the last emitted token, not yet in the cache.

    ``parents[0]`` is -1 and ``parents[i] < i``.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]

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


def chain(root: int, drafted: Sequence[int]) -> DraftTree:
    """A tree that is one line of tokens after the root."""
    return DraftTree((root, *drafted), tuple(range(-1, len(drafted))))


@dataclass(frozen=True)
class Step:
    """What one verification did: the tree, the target's logits ``[N, V]``, and the accepted nodes, root first."""

    tree: DraftTree
    logits_NV: Tensor
    path: tuple[int, ...]


class Drafter(Protocol):
    """Proposes what may come next. One drafter serves all requests of an open subject."""

    def start(self, prompt: Sequence[int]) -> None:
        """A new request begins."""

    def propose(self, history: Sequence[int], room: int) -> DraftTree:
        """A tree whose root is ``history[-1]``; deeper than ``room`` tokens is wasted."""

    def observe(self, step: Step) -> None:
        """Learn from what the target said."""

    def snapshot(self) -> object:
        """What has been learnt so far, kept apart from further learning."""

    def restore(self, state: object) -> None:
        """Go back to a snapshot, so that timed blocks start from the same state."""


class SpeculativeMethod(Method):
    """A lossless decoder made of a drafter. A subclass overrides :meth:`drafter`."""

    changes: ClassVar[frozenset[str]] = frozenset({"generate"})
    replaces: ClassVar[frozenset[str]] = frozenset({"decoder"})

    def drafter(self, subject: Subject, artifact: Artifact) -> Drafter:
        """The drafter for this subject."""
        raise NotImplementedError(f"{self.card.id} does not override drafter")

    @contextmanager
    def apply(self, subject: Subject, artifact: Artifact = None) -> Iterator[Subject]:
        """The subject with a decoder that drafts and verifies."""
        from harness.kinds.speculative.loop import SpeculativeDecoder

        subject.require(KV_VIEWS, self.card.id)
        yield replace(subject, decoder=SpeculativeDecoder(self.drafter(subject, artifact)))

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The kind's invariants."""
        from harness.kinds.speculative.checks import speculative_checks

        return speculative_checks(self, subject)
