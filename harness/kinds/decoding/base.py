"""Interface of the kind ``decoding``: a method supplies a strategy that writes each text, with step access to models.

The kind keeps the request's rules (law, end of text, stop strings, budget), the stamps and the counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.errors import Refused
from harness.kinds.method import Artifact, Check, Method
from harness.subjects.decode import StopRule, synchronize
from harness.subjects.requests import GenerateRequest, Generation
from harness.subjects.runner import Runner, head_inputs
from harness.subjects.sampling import Sampler
from harness.subjects.subject import KV_VIEWS, Subject


@dataclass(frozen=True)
class StepOut:
    """What a model says after the last token of each row, and the state from which its head says it."""

    logits_BV: Tensor
    hidden_BD: Tensor


class StepModel:
    """A model that a strategy steps, with a cache of its own; ``runner`` counts all that it forwards.

    :meth:`read` follows a text, :meth:`step` goes on from the cache as it is. ``runner.select_rows`` copies rows.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.runner = Runner(subject.model, subject.new_cache)
        self.held = 0

    def read(self, text: Sequence[int]) -> StepOut:
        """The state after a text that goes on from the one read last: only what the cache lacks is forwarded."""
        missing = list(text[self.held :])
        if missing:
            with head_inputs(self.runner.model) as states:
                if self.held:
                    ids_1T = torch.tensor([missing], device=self.runner.device)
                    logits_BV = self.runner.forward(ids_1T, logits_to_keep=1)[:, -1]
                    self.runner.commit()
                else:
                    logits_BV = self.runner.prefill([missing])
            self.held = len(text)
            self.out = StepOut(logits_BV, states[0][:, -1])
        return self.out

    def step(self, ids_BT: Tensor, embeds_BTD: Tensor | None = None) -> StepOut:
        """Forward new tokens of every row; ``embeds_BTD`` is what the model reads in place of their embeddings."""
        with head_inputs(self.runner.model) as states:
            logits_BV = self.runner.forward(ids_BT, logits_to_keep=1, embeds_BTD=embeds_BTD)[:, -1]
        self.runner.commit()
        self.held += ids_BT.shape[1]
        self.out = StepOut(logits_BV, states[0][:, -1])
        return self.out


class Continuation:
    """A prompt of a request, what was written after it so far, and the request's rules.

    ``subject`` is the model that was asked, ``row`` what will be answered; a strategy may add counts of its own to
    ``row.counts``. ``rng`` is the row's random stream for a strategy's own draws, apart from the one of :meth:`pick`.
    """

    def __init__(self, subject: Subject, request: GenerateRequest, index: int, sampler: Sampler, start: float) -> None:
        self.subject, self.request, self.index, self.sampler, self._start = subject, request, index, sampler, start
        self.stop = StopRule(request, subject.tokenizer)
        self.history = list(request.prompts[index])
        self.row = Generation(prompt_tokens=len(self.history))
        self.models: list[StepModel] = []
        self.charged = 0
        number = index if request.row_ids is None else request.row_ids[index]
        self.rng = torch.Generator().manual_seed(request.seed * 1_000_003 + number)

    @property
    def room(self) -> int:
        """Tokens that may still be written."""
        return self.stop.limit - len(self.row.tokens)

    def spend_at_most(self, new_tokens: int) -> None:
        """Lower the budget of this text to so many tokens in all."""
        self.stop.limit = min(self.stop.limit, new_tokens)

    def open(self, subject: Subject) -> StepModel:
        """A model to step, with an empty cache; its work is counted. Refuses one whose context is too short."""
        longest = self.row.prompt_tokens + self.stop.limit
        if longest > subject.max_length:
            raise Refused(
                f"{longest} tokens (prompt and new) exceed the context of {subject.max_length} of {subject.name}"
            )
        self.models.append(StepModel(subject))
        return self.models[-1]

    def charge(self, parameters: int) -> None:
        """Count one run of something that is no opened model: a router, a probe."""
        self.charged += parameters

    def best(self, logits_V: Tensor) -> int:
        """The likeliest next token after the request's processors; nothing is drawn."""
        return int(self.sampler.processed(logits_V, self.history).argmax())

    def pick(self, logits_V: Tensor) -> int:
        """The next token by the request's rule: greedy, or drawn from the row's random stream."""
        return self.sampler.pick(logits_V, self.history, self.index)

    def emit(self, token: int) -> bool:
        """Write a token, stamped now; returns whether the text is finished."""
        synchronize(self.subject.device)
        self.history.append(token)
        return self.stop.extend(self.row, [token], time.perf_counter() - self._start)


class Strategy:
    """Writes texts. One strategy serves all requests of an open subject. A subclass overrides :meth:`write`."""

    def write(self, text: Continuation) -> None:
        """Open models, step them and emit tokens until one of them finishes the text."""
        raise NotImplementedError(f"{type(self).__name__} does not override write")

    def snapshot(self) -> Any:
        """What has been learnt so far; None where nothing outlives a request."""

    def restore(self, state: Any) -> None:
        """Go back to a snapshot, so that timed blocks start from the same state."""


class DecodingMethod(Method):
    """A decoder made of a strategy. A subclass overrides :meth:`strategy`."""

    changes: ClassVar[frozenset[str]] = frozenset({"generate"})
    replaces: ClassVar[frozenset[str]] = frozenset({"decoder"})

    def check_twin(self) -> DecodingMethod:
        """The method as it is checked: without an artifact, which no invariant may depend on."""
        return self

    def strategy(self, subject: Subject, artifact: Artifact) -> Strategy:
        """The strategy for this subject."""
        raise NotImplementedError(f"{self.card.id} does not override strategy")

    @contextmanager
    def apply(self, subject: Subject, artifact: Artifact = None) -> Iterator[Subject]:
        """The subject with a decoder that follows the strategy."""
        from harness.kinds.decoding.decoder import StrategyDecoder

        subject.require(KV_VIEWS, self.card.id)
        yield replace(subject, decoder=StrategyDecoder(self.strategy(subject, artifact)))

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The kind's invariants."""
        from harness.kinds.decoding.checks import decoding_checks

        return decoding_checks(self, subject)
