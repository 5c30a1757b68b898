"""A subject whose cache is another process's: what scores and decodes for it, and a probe of what is held."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from harness.errors import Refused
from harness.kinds.method import Measurement
from harness.kinds.pruning.calibration import calibration_prompts
from harness.kinds.pruning.foreign.process import Ask
from harness.subjects.cache import KVCache
from harness.subjects.decode import StopRule
from harness.subjects.requests import GenerateRequest, Generation, Score, ScoreRequest
from harness.subjects.scoring import places_by_context
from harness.subjects.subject import GENERATE, SCORE, Subject


def foreign_subject(subject: Subject, ask: Ask) -> Subject:
    """The subject as the worker answers for it. Its attention is not the zoo's, so nothing that needs that follows."""
    return replace(
        subject,
        new_cache=_no_cache,
        scorer=ForeignScorer(ask),
        decoder=ForeignDecoder(ask),
        capabilities=frozenset({SCORE, GENERATE}),
    )


def _no_cache() -> KVCache:
    raise Refused("kvpress's process holds the cache; the model here has none")


@dataclass(frozen=True)
class ForeignScorer:
    """Asks for each context once and for its continuations together, as batches are not kvpress's."""

    ask: Ask

    def score(self, subject: Subject, requests: Sequence[ScoreRequest], batch_size: int) -> list[Score]:
        """Scores in the order of the requests."""
        scores: dict[int, Score] = {}
        for context, indices in places_by_context(requests).items():
            self.ask("prefill", context=list(context))
            answers = self.ask("score", continuations=[list(requests[i].continuation) for i in indices])
            scores |= {i: Score(*answer) for i, answer in zip(indices, answers, strict=True)}
        return [scores[i] for i in range(len(requests))]


@dataclass(frozen=True)
class ForeignDecoder:
    """Greedy decoding, a request a token; stops are decided here. Rows of a batch are decoded one by one."""

    rows_in_turn: ClassVar[bool] = True

    ask: Ask

    def snapshot(self) -> None:
        """Nothing outlives a request."""

    def restore(self, state: object) -> None:
        """Nothing to go back to."""

    def generate(self, subject: Subject, request: GenerateRequest) -> list[Generation]:
        """Continue the prompts. Refuses sampling, and requests of fixed length, which are there to be timed."""
        plain = not (request.temperature or request.processors or request.forced)
        if not plain or request.repetition_penalty != 1.0:
            raise Refused("kvpress's process decodes greedily: no sampling, logits processors or forced texts")
        if request.ignore_eos:
            raise Refused("kvpress runs in a process of its own, with other kernels: only its quality is measured")
        rule, start = StopRule(request, subject.tokenizer), time.perf_counter()
        return [self._row(rule, list(prompt), start) for prompt in request.prompts]

    def _row(self, rule: StopRule, prompt: list[int], start: float) -> Generation:
        row = Generation(prompt_tokens=len(prompt))
        held = self.ask("prefill", context=prompt)
        while not rule.extend(row, [held["next"]], time.perf_counter() - start):
            held = self.ask("step", token=held["next"])
        seen = len(prompt) + len(row.tokens) - 1
        row.counts |= {"forwards": len(row.tokens), "tokens_forwarded": seen} | kv_counts(held, seen)
        return row


def kv_counts(held: dict[str, Any], seen: int) -> dict[str, float]:
    """What the worker's cache holds of ``seen`` tokens, under the names of the zoo's own counts."""
    kept = held["slots"] / seen
    return {"kv_kept_fraction": kept, "kv_read_fraction": kept, "kv_bytes_held": held["bytes"]}


@dataclass(frozen=True)
class HeldProbe:
    """What is held after prompts of prose, the mean over them: no task says it, and the clocked workloads are refused.

    ``texts`` stretches of ``tokens`` tokens of a corpus's training split.
    """

    name: ClassVar[str] = "kv_held"

    corpus: str = "python_docs"
    texts: int = 4
    tokens: int = 768

    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """``kv_kept_fraction`` and ``kv_bytes_held`` after the prompt."""
        prompts = calibration_prompts(subject, self.corpus, self.texts, self.tokens, seed=0)
        rows = subject.generate(GenerateRequest(prompts=prompts, max_new_tokens=1))
        names = ("kv_kept_fraction", "kv_bytes_held")
        return [Measurement(n, sum(row.counts[n] for row in rows) / len(rows), n=len(rows)) for n in names]
