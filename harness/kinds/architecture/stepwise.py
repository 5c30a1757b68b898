"""Scoring and decoding for models that are no transformers models: they carry a state of their own from id to id."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, Protocol

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as pydantic_dataclass
from torch import Tensor, nn

from harness.errors import Refused, UsageError
from harness.kinds.architecture.base import ArchitectureMethod
from harness.kinds.architecture.training import next_token_loss
from harness.subjects.decode import StopRule, synchronize
from harness.subjects.requests import GenerateRequest, Generation, Score, ScoreRequest
from harness.subjects.sampling import Sampler
from harness.subjects.scoring import judge
from harness.subjects.subject import GENERATE, SCORE, Subject
from harness.subjects.tiny import ByteIds
from harness.subjects.tokenizer import Tokenizer


@dataclass
class MainCounts:
    """What the main network of a hierarchical model did: its forwards, and the slots of its cache."""

    forwards: int = 0
    slots: int = 0


class State(Protocol):
    """What a model carries of one row; :meth:`StepModel.read` changes it in place."""

    main: MainCounts


class StepModel(nn.Module):
    """A causal model over ids that is computed for whole rows, or id by id. The two must agree."""

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits ``[B, T, V]`` of the id after each; what lies to the right changes nothing."""
        raise NotImplementedError

    def begin(self) -> Any:
        """The state before any id."""
        raise NotImplementedError

    def read(self, ids: Sequence[int], state: Any) -> Tensor:
        """Read one id or more; the logits ``[V]`` of the next."""
        raise NotImplementedError


def no_cache() -> NoReturn:
    """The answer to code that asks such a subject for a key/value cache of the zoo."""
    raise Refused("this architecture carries a state of its own, it has no key/value cache to change")


def known(ids: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """The ids, all of the tokenizer's; a :class:`UsageError` where they were made by another one."""
    worst = max(ids)
    if worst >= tokenizer.vocab_size:
        raise UsageError(f"id {worst} is none of the {tokenizer.vocab_size} of this model's tokenizer {tokenizer.name}")
    return list(ids)


class RowScorer:
    """One forward of context and continuation, padded on the right, where a causal model does not look."""

    def score(self, subject: Subject, requests: Sequence[ScoreRequest], batch_size: int) -> list[Score]:
        """Scores in order; rows are batched by length, longest first."""
        tokenizer = subject.text_tokenizer()
        rows = [torch.tensor(known((*r.context, *r.continuation), tokenizer)) for r in requests]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]), reverse=True)
        scores: dict[int, Score] = {}
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            ids_BT = nn.utils.rnn.pad_sequence([rows[i] for i in part], batch_first=True).to(subject.device)
            for index, logits_TV in zip(part, subject.model(ids_BT), strict=True):
                before, tokens = len(requests[index].context) - 1, requests[index].continuation
                own_TV = logits_TV[before : before + len(tokens)]
                scores[index] = judge(own_TV, tokens) if tokens else Score(0.0, True)
        return [scores[i] for i in range(len(requests))]


class StepDecoder:
    """Id by id from the carried state; rows of a batch one after the other, as their segments end apart."""

    def snapshot(self) -> None:
        """Nothing outlives a request."""

    def restore(self, state: object) -> None:
        """Nothing to go back to."""

    def generate(self, subject: Subject, request: GenerateRequest) -> list[Generation]:
        """Continue each prompt; a later row's stamps include the wait for the earlier."""
        sampler, rule = Sampler(request, subject.device), StopRule(request, subject.tokenizer)
        # An end of a word is an id without bytes, so a stop string may reach over twice as many ids.
        rule.reach *= 2
        start = time.perf_counter()
        prompts = [known(prompt, subject.text_tokenizer()) for prompt in request.prompts]
        return [self._row(subject, sampler, rule, index, prompt, start) for index, prompt in enumerate(prompts)]

    @staticmethod
    def _row(
        subject: Subject, sampler: Sampler, rule: StopRule, index: int, history: list[int], start: float
    ) -> Generation:
        row, state = Generation(prompt_tokens=len(history)), subject.model.begin()
        logits_V = subject.model.read(history, state)
        before = state.main.slots
        while True:
            history.append(sampler.pick(logits_V, history, index))
            synchronize(subject.device)
            if rule.extend(row, history[-1:], time.perf_counter() - start):
                break
            logits_V = subject.model.read(history[-1:], state)
        read = len(row.tokens) - 1
        row.counts |= {
            "forwards": state.main.forwards,
            "tokens_forwarded": row.prompt_tokens + read,
            "tokens_per_segment": len(row.tokens) / state.main.forwards,
        }
        if read:
            row.counts["kv_slots_per_token"] = (state.main.slots - before) / read
        return row


@pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class StepMethod(ArchitectureMethod):
    """An architecture whose ``build`` makes a :class:`StepModel` over bytes, or over what ``tokenizer_of`` returns."""

    replaces: ClassVar[frozenset[str]] = frozenset({"weights", "decoder", "tokenizer", "cache"})

    def tokenizer_of(self, subject: Subject) -> Tokenizer:
        """Bytes, with an id that begins a text and one that ends it."""
        return ByteIds()

    def loss(self, model: Any, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Cross-entropy of the next id."""
        return next_token_loss(model(ids_BT), ids_BT, mask_BT)

    def subject_of(self, subject: Subject, model: Any) -> Subject:
        """Scores whole rows and decodes id by id."""
        return Subject(
            name=subject.name,
            model=model,
            tokenizer=self.tokenizer_of(subject),
            new_cache=no_cache,
            scorer=RowScorer(),
            decoder=StepDecoder(),
            capabilities=frozenset({SCORE, GENERATE}),
            max_length=subject.max_length,
        )
