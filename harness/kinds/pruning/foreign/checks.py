"""The invariants of a cache in another process: no view of its layers exists here, so answers are compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

from harness.kinds.invariants import TOLERANCE, Interrupted, fingerprint, float32_twin, random_ids
from harness.kinds.method import Check
from harness.kinds.pruning.base import PruningMethod
from harness.kinds.pruning.checks import expected_budget
from harness.kinds.pruning.foreign.process import interpreter
from harness.subjects.requests import GenerateRequest, Generation, Score, ScoreRequest
from harness.subjects.subject import Subject

LENGTHS = (160, 96)
"""Prompts longer than the observation windows of kvpress's defaults."""


@dataclass
class _Checks:
    method: PruningMethod
    given: Subject

    @cached_property
    def subject(self) -> Subject:
        return float32_twin(self.given)

    @cached_property
    def prompts(self) -> list[list[int]]:
        return [random_ids(self.subject, n, seed) for seed, n in enumerate(LENGTHS)]

    @cached_property
    def requests(self) -> list[ScoreRequest]:
        """Continuations of one, two and seven tokens after each prompt."""
        tokens = tuple(random_ids(self.subject, 7, 9))
        return [ScoreRequest(context=tuple(p), continuation=tokens[:n]) for p in self.prompts for n in (1, 2, 7)]

    @contextmanager
    def opened(self, **params: Any) -> Iterator[Subject]:
        method = replace(cast(Any, self.method), **params) if params else self.method
        with method.apply(self.subject) as pruned:
            yield pruned

    def written(self, subject: Subject, count: int = 1) -> list[Generation]:
        return subject.generate(GenerateRequest(prompts=self.prompts, max_new_tokens=count, eos_ids=()))

    def identity(self) -> None:
        """At the card's identity the log-probabilities, and all that is held, are the plain model's."""
        plain = self.subject.score(self.requests)
        with self.opened(**dict(self.method.card.identity or {})) as whole:
            ours = whole.score(self.requests)
            kept = [row.counts["kv_kept_fraction"] for row in self.written(whole)]
        assert_same_scores("identity setting", self.requests, ours, plain)
        if kept != [1.0] * len(kept):
            raise AssertionError(f"identity setting: {kept} of the slots are held")

    def budget(self) -> None:
        """The worker's cache holds the budget, on average over layers and heads, and no more bytes than a full one."""
        ratio = cast(Any, self.method).keep_ratio
        with self.opened() as pruned:
            rows = self.written(pruned)
        full = self.subject.generate(GenerateRequest(prompts=[self.prompts[0]], max_new_tokens=1))[0]
        slot_bytes = full.counts["kv_bytes_held"] / len(self.prompts[0])
        for row in rows:
            n, slots = row.prompt_tokens, row.counts["kv_kept_fraction"] * row.prompt_tokens
            budget = expected_budget(ratio, n)
            if not budget - 1 < slots < budget + 1:
                raise AssertionError(f"{slots:g} slots of {n} are held, the budget is {budget}")
            if not slots * slot_bytes - 1 <= row.counts["kv_bytes_held"] <= n * slot_bytes:
                raise AssertionError(f"{row.counts['kv_bytes_held']} bytes are held in {slots:g} slots of {n}")

    def stateless(self) -> None:
        """A request gives the same scores again after another one."""
        first = self.requests[:3]
        with self.opened() as pruned:
            before, _other, after = (pruned.score(part) for part in (first, self.requests[3:], first))
        if before != after:
            raise AssertionError(f"the same request scores {before}, after another {after}")

    def scoring(self) -> None:
        """What decoding writes is scored as greedy, and other tokens are less likely."""
        with self.opened() as pruned:
            rows = self.written(pruned, 5)
            asked = [
                ScoreRequest(context=tuple(prompt), continuation=tuple(row.tokens[:n]))
                for prompt, row in zip(self.prompts, rows, strict=True)
                for n in (1, 2, 5)
            ]
            scores = pruned.score(asked)
        for request, score in zip(asked, scores, strict=True):
            if not score.is_greedy or not -math.inf < score.logprob <= 0:
                raise AssertionError(f"decoding writes {list(request.continuation)}, which scores {score}")

    def restored(self, interrupt: bool) -> None:
        """The model is as before, and the process has ended, also after an exception."""
        state = fingerprint(self.subject.model)
        try:
            with self.opened() as pruned:
                kept = pruned
                if interrupt:
                    raise Interrupted
        except Interrupted:
            pass
        if fingerprint(self.subject.model) != state:
            raise AssertionError("the model's modules, hooks, weights or attention are not as before")
        try:
            kept.score(self.requests[:1])
        except Exception:  # noqa: BLE001 - however a closed pipe answers
            return
        raise AssertionError("the process still answers after the method was left")


def assert_same_scores(what: str, requests: list[ScoreRequest], ours: list[Score], theirs: list[Score]) -> None:
    """Raise where log-probabilities differ by more than rounding explains, a tolerance a token."""
    for request, one, other in zip(requests, ours, theirs, strict=True):
        error = abs(one.logprob - other.logprob)
        if not error <= TOLERANCE * len(request.continuation):
            raise AssertionError(f"{what}: {len(request.continuation)} tokens differ by {error:.3g} in log-probability")


def foreign_checks(method: PruningMethod, subject: Subject) -> Iterable[Check]:
    """The checks; refused as a whole where the other environment is missing."""
    interpreter()
    checks = _Checks(method, subject)
    yield Check("identity equals baseline", checks.identity)
    yield Check("budget is held", checks.budget)
    yield Check("no state between requests", checks.stateless)
    yield Check("scoring agrees with decoding", checks.scoring)
    yield Check("restored after exit", lambda: checks.restored(False))
    yield Check("restored after an exception", lambda: checks.restored(True))
