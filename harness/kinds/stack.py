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
    """Yield the subject after all methods. ``prepare`` supplies the artifacts of methods that train.

    A stack whose methods cannot serve together is refused in one line, before anything is changed.
    """
    _refuse_rivals(methods, subject)
    with ExitStack() as contexts:
        for method in methods:
            changed = contexts.enter_context(method.apply(subject, _artifact(method, subject, prepare)))
            subject = replace(
                changed, stack=(*subject.stack, method.signature), replaced=subject.replaced | method.replaces
            )
        yield subject


def _artifact(method: Method, subject: Subject, prepare: PrepareOne | None) -> Artifact:
    if not method.trains:
        return None
    if prepare is None:
        raise Refused(
            f"{method.card.id} needs an artifact; apply it through an ArtifactStore (zoo train makes it alone)"
        )
    return prepare(method, subject)


def _refuse_rivals(methods: Sequence[Method], subject: Subject) -> None:
    owners = dict.fromkeys(subject.replaced, "+".join(subject.stack) or subject.name)
    for method in methods:
        for part in sorted(method.replaces):
            if part in owners:
                raise Refused(f"{method.card.id} cannot follow {owners[part]}: both replace the {part}")
            owners[part] = method.card.id
