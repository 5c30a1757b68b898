"""The invariants of every speculative method, on any subject. Texts are compared in float32, near ties excused."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from harness.kinds.invariants import (
    assert_same_text,
    float32_twin,
    forced_logits,
    random_ids,
    restoration_checks,
)
from harness.kinds.method import Check
from harness.kinds.speculative.base import SpeculativeMethod
from harness.subjects.requests import GenerateRequest, Generation
from harness.subjects.sampling import Sampler
from harness.subjects.subject import Subject

SMALL_MODEL = 20_000_000
DAMPING = 0.02
LAW_RUNS = 400
LAW_TOKENS = 3
LAW_TOP_K = 3
SAMPLED: dict[str, Any] = {"temperature": 0.6, "top_k": 40, "top_p": 0.95, "seed": 7}


class FavourSum:
    """A logits processor that depends on the whole history: it favours the id that is the sum of all ids before."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores ``[1, V]`` with one of them raised."""
        raised = scores.clone()
        raised[:, int(input_ids.sum()) % scores.shape[-1]] += 3.0
        return raised


def exact_law(subject: Subject, request: GenerateRequest, depth: int) -> dict[tuple[int, ...], float]:
    """Probability of every text of ``depth`` tokens, by forwards over all of them."""
    sampler, prompt = Sampler(request, subject.device), list(request.prompts[0])
    law: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(depth):
        grown: dict[tuple[int, ...], float] = {}
        for text, weight in law.items():
            probs = sampler.probabilities(forced_logits(subject, [prompt], [text])[0, -1], [*prompt, *text])
            for token in probs.nonzero()[:, 0].tolist():
                grown[(*text, token)] = weight * float(probs[token])
        law = grown
    return law


def chi_square(counts: Counter[tuple[int, ...]], law: dict[tuple[int, ...], float]) -> float:
    """The p-value of counts under a law; cells expected fewer than five times are pooled."""
    from scipy.stats import chi2

    total = sum(counts.values())
    if set(counts) - set(law):
        return 0.0
    cells = [(counts[text], total * p) for text, p in law.items()]
    rare = [cell for cell in cells if cell[1] < 5]
    pooled = [cell for cell in cells if cell[1] >= 5]
    if sum(e for _, e in rare) > 0:
        pooled.append((sum(o for o, _ in rare), sum(e for _, e in rare)))
    if len(pooled) < 2:
        return 1.0
    return float(chi2.sf(sum((o - e) ** 2 / e for o, e in pooled), len(pooled) - 1))


def forgetful_twin(subject: Subject) -> Subject:
    """A copy that hardly attends, so that its text runs in circles and drafts are accepted.

    The text of a random model never repeats itself, and no check would see an accepted run.
    """
    model = copy.deepcopy(subject.model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("o_proj.weight"):
                weight.mul_(DAMPING)
    return replace(subject, model=model)


@dataclass
class _Checks:
    """One method and one subject; every check opens the method anew. ``forgetful``: on its forgetful twin."""

    method: SpeculativeMethod
    given: Subject
    forgetful: bool = False

    @cached_property
    def subject(self) -> Subject:
        subject = float32_twin(self.given)
        return forgetful_twin(subject) if self.forgetful else subject

    @cached_property
    def repetitive(self) -> list[int]:
        """A prompt that goes on as the model would, so that what follows has been seen before."""
        start = random_ids(self.subject, 5, 2)
        return [*start, *self.subject.generate(self.request([start], 96 if self.forgetful else 24))[0].tokens]

    @cached_property
    def prompts(self) -> list[list[int]]:
        found = [random_ids(self.subject, 20, 0), random_ids(self.subject, 1, 1), self.repetitive]
        if self.subject.max_length <= 1024:
            found.append(random_ids(self.subject, self.subject.max_length - 16, 3))
        return found

    @contextmanager
    def opened(self) -> Iterator[Subject]:
        with self.method.apply(self.subject) as drafting:
            yield drafting

    def request(self, prompts: Sequence[Sequence[int]], tokens: int, **rest: Any) -> GenerateRequest:
        return GenerateRequest(prompts=prompts, max_new_tokens=tokens, **({"ignore_eos": True} | rest))

    def same(self, drafting: Subject, request: GenerateRequest, what: str) -> None:
        """Ours against plain decoding: tokens, why each row ended, and its text."""
        for row, (ours, theirs) in enumerate(
            zip(drafting.generate(request), self.subject.generate(request), strict=True)
        ):
            if assert_same_text(self.subject, request, row, ours, theirs, what):
                end, wanted = (ours.stop_reason, ours.text), (theirs.stop_reason, theirs.text)
                if end != wanted:
                    raise AssertionError(
                        f"{what}: {len(ours.tokens)} tokens ended with {end}, plain decoding with {wanted}"
                    )

    def greedy(self) -> None:
        """Greedy text equals plain decoding: random, one-token, repetitive prompts, and one near the context's end."""
        with self.opened() as drafting:
            for visit in ("first", "second"):
                for prompt in self.prompts:
                    self.same(drafting, self.request([prompt], 16), f"greedy, {visit} visit")

    def end_of_text(self) -> None:
        """An end-of-text id inside an accepted run ends the row there."""
        request = self.request([self.repetitive], 24)
        with self.opened() as drafting:
            tokens = drafting.generate(request)[0].tokens
            for eos in list(dict.fromkeys(tokens))[:6]:
                self.same(drafting, replace(request, eos_ids=(eos,), ignore_eos=False), f"end of text {eos}")

    def stop_string(self) -> None:
        """A stop string inside an accepted run ends the row and is cut from its text."""
        if self.subject.tokenizer is None:
            return
        request = self.request([self.repetitive], 24)
        text = self.subject.generate(request)[0].text
        stops = dict.fromkeys(text[start : start + 2] for start in range(1, len(text) - 1, 4))
        with self.opened() as drafting:
            for stop in list(stops)[:5]:
                self.same(drafting, replace(request, stop_strings=(stop,)), f"stop string {stop!r}")

    def length(self) -> None:
        """``max_new_tokens`` is never exceeded, wherever it cuts a run."""
        with self.opened() as drafting:
            for tokens in range(1, 10):
                request = self.request([self.repetitive], tokens)
                self.same(drafting, request, f"max_new_tokens={tokens}")
                self._assert_counts(drafting.generate(request)[0], tokens)

    def counts(self) -> None:
        """Steps sum to the tokens, each emits one at least, and there is one forward a step."""
        with self.opened() as drafting:
            for prompt in self.prompts:
                self._assert_counts(drafting.generate(self.request([prompt], 16))[0], 16)

    @staticmethod
    def _assert_counts(row: Generation, tokens: int) -> None:
        steps, stamps = row.steps, row.stamps_s
        if sum(steps) != tokens or len(row.tokens) != tokens or len(stamps) != tokens or min(steps) < 1:
            raise AssertionError(
                f"{len(row.tokens)} tokens with steps {steps} and {len(stamps)} stamps; {tokens} asked"
            )
        if stamps != sorted(stamps):
            raise AssertionError(f"stamps go back in time: {stamps}")
        if row.counts["forwards"] != len(steps):
            raise AssertionError(f"{row.counts['forwards']:g} forwards of the target in {len(steps)} steps")

    def processors(self) -> None:
        """A repetition penalty and a processor that reads the whole history act at every node."""
        with self.opened() as drafting:
            for extra in ({"repetition_penalty": 1.3}, {"processors": (FavourSum(),)}):
                for prompt in (self.prompts[0], self.repetitive):
                    self.same(drafting, self.request([prompt], 16, **extra), f"with {next(iter(extra))}")

    def coupled(self) -> None:
        """Sampled text equals plain decoding with the same seed: each token is drawn from the target's own law."""
        with self.opened() as drafting:
            for extra in ({}, {"repetition_penalty": 1.2, "processors": (FavourSum(),)}):
                self.same(drafting, self.request(self.prompts[:3], 16, **SAMPLED, **extra), "sampled")

    def law(self) -> None:
        """The joint law of the first sampled tokens is the target's (chi-square, p > 0.001)."""
        rest = {"temperature": 1.0, "top_k": LAW_TOP_K, "seed": 5}
        request = self.request([self.repetitive[-8:]] * LAW_RUNS, LAW_TOKENS, **rest)
        with self.opened() as drafting:
            seen = Counter(tuple(row.tokens) for row in drafting.generate(request))
        p = chi_square(seen, exact_law(self.subject, request, LAW_TOKENS))
        if p < 1e-3:
            raise AssertionError(f"{LAW_RUNS} sampled texts do not follow the target's law: p = {p:.2g}")

    def restored_state(self) -> None:
        """After ``restore`` the drafter does as before it learnt: same tokens, same steps, greedy and sampled."""
        with self.opened() as drafting:
            for extra in ({}, SAMPLED):
                request = self.request([self.repetitive], 16, **extra)
                state = drafting.decoder.snapshot()
                before = drafting.generate(request)[0]
                for prompt in self.prompts:
                    drafting.generate(self.request([prompt], 16))
                drafting.decoder.restore(state)
                after = drafting.generate(request)[0]
                if (before.tokens, before.steps) != (after.tokens, after.steps):
                    raise AssertionError(f"steps were {before.steps}; after restore they are {after.steps}")

    def batch(self) -> None:
        """Rows of a batch give the text they give alone; sampled too where the text does not depend on the draft."""
        rows = [*self.prompts[:3], self.prompts[0]]
        with self.opened() as drafting:
            for extra in ({}, SAMPLED) if self.method.card.guarantee == "exact" else ({},):
                request = self.request(rows, 12, **extra)
                for row, ours in enumerate(drafting.generate(request)):
                    alone = replace(request, prompts=[rows[row]], row_ids=[row])
                    theirs = drafting.generate(alone)[0]
                    assert_same_text(self.subject, alone, 0, ours, theirs, f"row {row} of {len(rows)}")


def speculative_checks(method: SpeculativeMethod, subject: Subject) -> Iterable[Check]:
    """All checks of a method. Sampling is compared token by token for ``exact`` methods, else by its law."""
    method = method.check_twin()
    plain = _Checks(method, subject)
    small = sum(p.numel() for p in subject.model.parameters()) <= SMALL_MODEL
    runs = _Checks(method, subject, forgetful=True) if small else plain
    both = (plain, runs) if small else (plain,)

    def on_both(check: Callable[[_Checks], None]) -> Callable[[], None]:
        def run() -> None:
            for checks in both:
                check(checks)

        return run

    yield Check("greedy text equals plain decoding", on_both(_Checks.greedy))
    yield Check("end of text inside a run", runs.end_of_text)
    yield Check("stop string inside a run", runs.stop_string)
    yield Check("length limit inside a run", runs.length)
    yield Check("steps and forwards add up", runs.counts)
    yield Check("processors act at every node", on_both(_Checks.processors))
    if method.card.guarantee == "exact":
        yield Check("sampled text equals plain decoding", on_both(_Checks.coupled))
    else:
        yield Check("sampled law is the target's", runs.law)
    yield Check("the drafter's memory can be restored", runs.restored_state)
    yield Check("batch equals loop", runs.batch)
    yield from restoration_checks(method, subject)
