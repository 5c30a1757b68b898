"""The decoder around a strategy: rows one by one, and what all opened models have done as counts of the row."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.kinds.decoding.base import Continuation, Strategy
from harness.subjects.requests import GenerateRequest, Generation
from harness.subjects.sampling import Sampler
from harness.subjects.subject import Subject


def work_counts(text: Continuation) -> dict[str, float]:
    """Work of a finished text. Forwards and tokens are those of the model that was asked, whatever forwarded them.

    ``tokens_forwarded`` is never less than the prompt, so that what goes beyond it is work of the strategy, prompts
    that were read again included. Every forward makes all parameters of its model active, once for a batch.
    """
    asked = [m.runner.counts for m in text.models if m.subject.model is text.subject.model]
    active = sum(m.runner.counts.forwards * sum(p.numel() for p in m.subject.model.parameters()) for m in text.models)
    return {
        "forwards": sum(counts.forwards for counts in asked),
        "tokens_forwarded": max(text.row.prompt_tokens, sum(counts.tokens for counts in asked)),
        "kv_bytes_held": sum(m.runner.cache.held_bytes() for m in text.models),
        "kv_bytes_allocated": sum(m.runner.cache.allocated_bytes() for m in text.models),
        "active_parameters_per_token": (active + text.charged) / max(1, len(text.row.tokens)),
    }


@dataclass
class StrategyDecoder:
    """Writes each prompt's continuation with a strategy. A later row's stamps include the wait for the earlier."""

    rows_in_turn: ClassVar[bool] = True

    strategy: Strategy

    def snapshot(self) -> Any:
        """What the strategy has learnt so far."""
        return self.strategy.snapshot()

    def restore(self, state: Any) -> None:
        """Put the strategy back."""
        self.strategy.restore(state)

    def generate(self, subject: Subject, request: GenerateRequest) -> list[Generation]:
        """Continue each prompt."""
        sampler, start = Sampler(request, subject.device), time.perf_counter()
        return [self._one(Continuation(subject, request, i, sampler, start)) for i in range(len(request.prompts))]

    def _one(self, text: Continuation) -> Generation:
        self.strategy.write(text)
        text.row.counts |= work_counts(text)
        text.row.seconds["forward"] = sum(m.runner.counts.forward_s for m in text.models)
        return text.row
