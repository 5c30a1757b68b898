"""The invariants of every decoding method, on any subject: what it may not do, whatever it writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from harness.kinds.decoding.base import DecodingMethod
from harness.kinds.invariants import assert_same_text, float32_twin, random_ids, restoration_checks
from harness.kinds.method import Check
from harness.subjects.requests import GenerateRequest, Generation
from harness.subjects.subject import Subject

TOKENS = 12
SAMPLED: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "seed": 7}
LONGEST_PROMPT = 1024
"""A prompt that ends at the context's limit is tried where the context is no longer."""


def assert_whole(row: Generation, request: GenerateRequest, what: str) -> None:
    """Raise where a row breaks its request's budget, or its steps, stamps or counts do not fit its tokens."""
    if len(row.tokens) > request.max_new_tokens:
        raise AssertionError(f"{what}: {len(row.tokens)} tokens; {request.max_new_tokens} were allowed")
    if sum(row.steps) != len(row.tokens) or len(row.stamps_s) != len(row.tokens):
        raise AssertionError(f"{what}: {len(row.tokens)} tokens with steps {row.steps}, {len(row.stamps_s)} stamps")
    if row.stamps_s != sorted(row.stamps_s):
        raise AssertionError(f"{what}: stamps go back in time: {row.stamps_s}")
    if row.counts["tokens_forwarded"] < row.prompt_tokens or row.counts["active_parameters_per_token"] <= 0:
        raise AssertionError(f"{what}: the work is not counted: {row.counts}")


@dataclass
class _Checks:
    """One method and one subject; every check opens the method anew."""

    method: DecodingMethod
    given: Subject

    @cached_property
    def subject(self) -> Subject:
        return float32_twin(self.given)

    @cached_property
    def prompts(self) -> list[list[int]]:
        lengths = [20, 1, 7]
        if self.subject.max_length <= LONGEST_PROMPT:
            lengths.append(self.subject.max_length - TOKENS)
        return [random_ids(self.subject, length, seed) for seed, length in enumerate(lengths)]

    @contextmanager
    def opened(self) -> Iterator[Subject]:
        with self.method.apply(self.subject) as decoding:
            yield decoding

    @staticmethod
    def request(prompts: Sequence[Sequence[int]], tokens: int = TOKENS, **rest: Any) -> GenerateRequest:
        return GenerateRequest(prompts=prompts, max_new_tokens=tokens, **({"ignore_eos": True} | rest))

    def whole(self) -> None:
        """Budgets, steps, stamps and counts: prompts of one token and up to the context's end, every small budget."""
        with self.opened() as decoding:
            for prompt in self.prompts:
                request = self.request([prompt])
                assert_whole(decoding.generate(request)[0], request, f"prompt of {len(prompt)}")
            for tokens in range(1, 6):
                request = self.request(self.prompts[:1], tokens)
                assert_whole(decoding.generate(request)[0], request, f"max_new_tokens={tokens}")

    def ends(self) -> None:
        """Nothing follows an end-of-text id, and no text holds a stop string."""
        with self.opened() as decoding:
            row = decoding.generate(self.request(self.prompts[:1]))[0]
            for eos in list(dict.fromkeys(row.tokens))[:4]:
                ended = decoding.generate(self.request(self.prompts[:1], eos_ids=(eos,), ignore_eos=False))[0]
                if eos in ended.tokens[:-1] or (ended.stop_reason == "eos") != (ended.tokens[-1:] == [eos]):
                    raise AssertionError(f"end of text {eos}: {ended.tokens} ended with {ended.stop_reason!r}")
            for stop in dict.fromkeys(row.text[i : i + 2] for i in range(0, max(0, len(row.text) - 1), 3)):
                ended = decoding.generate(self.request(self.prompts[:1], stop_strings=(stop,)))[0]
                if stop in ended.text:
                    raise AssertionError(f"stop string {stop!r} is in the text {ended.text!r}")

    def repeats(self) -> None:
        """From one state a request has one answer, whatever was asked in between."""
        with self.opened() as decoding:
            for extra in ({}, SAMPLED):
                state = decoding.decoder.snapshot()
                request = self.request(self.prompts[:1], **extra)
                before = decoding.generate(request)[0].tokens
                decoding.generate(self.request(self.prompts[1:3], **extra))
                decoding.decoder.restore(state)
                after = decoding.generate(request)[0].tokens
                if after != before:
                    raise AssertionError(f"{before} became {after} after other requests")

    def batch(self) -> None:
        """Rows of a batch give the text they give alone."""
        with self.opened() as decoding:
            for extra in ({}, SAMPLED):
                request = self.request(self.prompts[:3], **extra)
                state = decoding.decoder.snapshot()
                together = decoding.generate(request)
                for index, row in enumerate(together):
                    decoding.decoder.restore(state)
                    alone = decoding.generate(replace(request, prompts=[request.prompts[index]], row_ids=[index]))[0]
                    if alone.tokens != row.tokens:
                        raise AssertionError(f"row {index} of 3 is {row.tokens}, alone {alone.tokens}")

    def plain(self, other: Callable[[Subject], Subject]) -> None:
        """The greedy text is that of plain decoding by another subject, near ties excused."""
        expected = other(self.subject)
        with self.opened() as decoding:
            for prompt in self.prompts:
                request = self.request([prompt])
                ours, theirs = decoding.generate(request)[0], expected.generate(request)[0]
                assert_same_text(expected, request, 0, ours, theirs, f"prompt of {len(prompt)}")


def plain_text_check(
    name: str, method: DecodingMethod, subject: Subject, other: Callable[[Subject], Subject] = lambda subject: subject
) -> Check:
    """A check that the method writes what plain decoding by the subject does, or by ``other(subject)``."""
    return Check(name, lambda: _Checks(method, subject).plain(other))


def decoding_checks(method: DecodingMethod, subject: Subject) -> Iterable[Check]:
    """All checks of a method."""
    twin = method.check_twin()
    checks = _Checks(twin, subject)
    yield Check("budgets, steps and counts add up", checks.whole)
    yield Check("end of text and stop strings end the text", checks.ends)
    yield Check("the same request has the same answer", checks.repeats)
    yield Check("batch equals loop", checks.batch)
    if method.card.identity is not None:
        same: DecodingMethod = replace(twin, **method.card.identity)  # type: ignore[type-var]
        yield plain_text_check("with the card's identity it is plain decoding", same, subject)
    yield from restoration_checks(twin, subject)
