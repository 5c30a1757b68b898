"""Applies a stack of methods to a subject, one inside the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from harness.errors import Refused
from harness.kinds.method import Artifact, Method
from harness.subjects.subject import Subject

PrepareOne = Callable[[Method, Subject], Artifact]


@contextmanager
def applied(methods: Sequence[Method], subject: Subject, prepare: PrepareOne | None = None) -> Iterator[Subject]:
    """Yield the subject after all methods. ``prepare`` supplies the artifacts of methods that train."""
    with ExitStack() as contexts:
        for method in methods:
            _refuse_twice(method, subject)
            artifact = prepare(method, subject) if method.trains and prepare is not None else None
            changed = contexts.enter_context(method.apply(subject, artifact))
            subject = replace(changed, stack=(*subject.stack, method.card.id))
        yield subject


def _refuse_twice(method: Method, subject: Subject) -> None:
    """Two methods that replace the same part cannot stack; each kind's apply refuses what else it cannot serve."""
    if method.card.id in subject.stack:
        raise Refused(f"{method.card.id} is in the stack {'+'.join(subject.stack)} already")
