"""Decoding and scoring by macro steps: the base reads a segment in one forward, the micro decoder writes the next."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.subjects.decode import StopRule, finish_counts, synchronize
from harness.subjects.requests import GenerateRequest, Generation, Score, ScoreRequest
from harness.subjects.runner import Runner
from harness.subjects.sampling import Sampler
from harness.subjects.scoring import judge
from harness.subjects.subject import Subject

Pick = Callable[[Tensor], int]
"""Chooses a token from its logits ``[V]``."""


class MacroRun:
    """One row: what the base has read, and from where the next segment is written."""

    def __init__(self, subject: Subject, confidence: float) -> None:
        self.model: Any = subject.model
        self.runner = Runner(subject.model, subject.new_cache)
        self.confidence = confidence

    def prefill(self, prompt: Sequence[int]) -> None:
        """Read a prompt, token by token as the base does."""
        with self.model.features() as caught:
            self.logits_V = self.runner.prefill([prompt])[0]
        self._keep(caught)

    def read(self, segment: Sequence[int]) -> None:
        """One macro step: the segment's merged vector, at the position of its last token, takes one cache slot."""
        device = self.runner.device
        self.runner.cache.advance(torch.tensor([len(segment) - 1], device=device))
        with self.model.features() as caught:
            shape = torch.zeros(1, 1, dtype=torch.long, device=device)
            self.logits_V = self.runner.forward(shape, embeds_BTD=self.model.merged(segment))[0, -1]
        self.runner.commit()
        self._keep(caught)

    def _keep(self, caught: Sequence[Tensor]) -> None:
        self.features_1KD = torch.stack([states[:, -1] for states in caught], 1)

    def fork(self) -> MacroRun:
        """A run that goes on from here on its own."""
        twin = copy.copy(self)
        twin.runner = self.runner.fork()
        return twin

    def write(self, pick: Pick, room: int, eos: frozenset[int] = frozenset()) -> list[int]:
        """Write one segment: until the stop head ends it, ``room`` is full, or an end-of-text id comes."""
        model, segment = self.model, list[int]()
        state_1D, logits_V = self.features_1KD[:, -1], self.logits_V
        most = min(room, model.longest)
        while True:
            segment.append(pick(logits_V))
            # Whether this token is the last is read from the vector that it came from.
            if len(segment) >= most or segment[-1] in eos or self._ends(state_1D):
                return segment
            embeds = model.model.embed_tokens(torch.tensor([segment], device=self.runner.device))
            state_1D = model.micro(self.features_1KD, embeds)[:, -1]
            logits_V = model.lm_head(state_1D)[0]

    def _ends(self, state_1D: Tensor) -> bool:
        return 1 - float(self.model.micro.stop(state_1D).float().sigmoid()) < self.confidence


@dataclass(frozen=True)
class MacroDecoder:
    """Writes segments; rows of a batch are decoded one by one, as their segments end at different places."""

    rows_in_turn: ClassVar[bool] = True

    confidence: float

    def snapshot(self) -> None:
        """Nothing outlives a request."""

    def restore(self, state: object) -> None:
        """Nothing to go back to."""

    def generate(self, subject: Subject, request: GenerateRequest) -> list[Generation]:
        """Continue each prompt; a later row's stamps include the wait for the earlier."""
        sampler, rule = Sampler(request, subject.device), StopRule(request, subject.tokenizer)
        start = time.perf_counter()
        return [self._row(subject, sampler, rule, i, list(p), start) for i, p in enumerate(request.prompts)]

    def _row(
        self, subject: Subject, sampler: Sampler, rule: StopRule, index: int, history: list[int], start: float
    ) -> Generation:
        run, row = MacroRun(subject, self.confidence), Generation(prompt_tokens=len(history))
        run.prefill(history)
        segments, done = 0, False

        def emit(tokens: list[int]) -> bool:
            synchronize(subject.device)
            return rule.extend(row, tokens, time.perf_counter() - start)

        def pick(logits_V: Tensor) -> int:
            history.append(sampler.pick(logits_V, history, index))
            return history[-1]

        def pick_first(logits_V: Tensor) -> int:
            # The first token comes from the prefill alone: it has a stamp and a step of its own.
            nonlocal done
            token = pick(logits_V)
            done = done or (not row.tokens and emit([token]))
            return token

        while not done:
            segment = run.write(pick if segments else pick_first, rule.limit - len(row.tokens), rule.eos)
            rest = segment if segments else segment[1:]
            segments += 1
            done = done or (bool(rest) and emit(rest))
            if not done:
                run.read(segment)
        finish_counts(row, run.runner)
        _count(row, run.runner, segments)
        return row


def _count(row: Generation, runner: Runner, segments: int) -> None:
    """What segments saved: tokens in each, and cache slots for each token that was read back."""
    row.counts["tokens_per_segment"] = len(row.tokens) / segments
    assert runner.cache.seen_B is not None
    read = int(runner.cache.seen_B[0]) - row.prompt_tokens
    if read:
        row.counts["kv_slots_per_token"] = (segments - 1) / read


@dataclass(frozen=True)
class MacroScorer:
    """Scores as decoding would write: the context token by token, the continuation by the stop head's segments."""

    confidence: float

    def score(self, subject: Subject, requests: Sequence[ScoreRequest], batch_size: int) -> list[Score]:
        """Scores in order; requests with one context share its prefill."""
        by_context: dict[tuple[int, ...], list[int]] = {}
        for index, request in enumerate(requests):
            by_context.setdefault(request.context, []).append(index)
        scores: dict[int, Score] = {}
        for context, several in by_context.items():
            run = MacroRun(subject, self.confidence)
            run.prefill(context)
            for index in several:
                branch = run.fork() if len(several) > 1 else run
                scores[index] = self._continue(branch, requests[index].continuation)
        return [scores[i] for i in range(len(requests))]

    @staticmethod
    def _continue(run: MacroRun, tokens: Sequence[int]) -> Score:
        logits: list[Tensor] = []

        def pick(logits_V: Tensor) -> int:
            logits.append(logits_V)
            return tokens[len(logits) - 1]

        while len(logits) < len(tokens):
            segment = run.write(pick, len(tokens) - len(logits))
            if len(logits) < len(tokens):
                run.read(segment)
        return judge(torch.stack(logits), tokens) if logits else Score(0.0, True)
