"""The one type of the zoo: everything that can be evaluated is a subject, and a method turns one into another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from harness.errors import Refused, UsageError
from harness.subjects.cache import KVCache
from harness.subjects.requests import GenerateRequest, Generation, Score, ScoreRequest
from harness.subjects.tokenizer import Tokenizer

SCORE, GENERATE, KV_VIEWS, TRAIN = "score", "generate", "kv_views", "train"


class Scorer(Protocol):
    """Answers log-likelihood requests for a subject."""

    def score(self, subject: Subject, requests: Sequence[ScoreRequest], batch_size: int) -> list[Score]:
        """One score a request, in order."""


class Decoder(Protocol):
    """Continues prompts for a subject. One that takes the rows of a batch in turn says so: ``rows_in_turn = True``."""

    def generate(self, subject: Subject, request: GenerateRequest) -> list[Generation]:
        """One generation a prompt, in order."""

    def snapshot(self) -> object:
        """State that outlives a request (what a drafter has learnt); None where there is none."""

    def restore(self, state: object) -> None:
        """Go back to a snapshot."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model with what is needed to ask it something. Methods make new ones with :func:`dataclasses.replace`.

    ``capabilities``: ``score``, ``generate``, ``kv_views`` (its attention runs through the zoo's function, so caches
    may be pruned and trees verified), ``train`` (parameters take gradients). ``stack`` names the applied
    methods with their parameters, ``replaced`` the parts they own.
    """

    name: str
    model: Any
    tokenizer: Tokenizer | None
    new_cache: Callable[[], KVCache]
    scorer: Scorer
    decoder: Decoder
    capabilities: frozenset[str]
    max_length: int = 2048
    stack: tuple[str, ...] = ()
    replaced: frozenset[str] = frozenset()

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self._first_parameter().device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the model's parameters."""
        return self._first_parameter().dtype

    def _first_parameter(self) -> torch.Tensor:
        parameter: torch.Tensor = next(self.model.parameters())
        return parameter

    def require(self, capability: str, who: str) -> None:
        """Refuse in one line where a capability is missing."""
        if capability not in self.capabilities:
            have = ", ".join(sorted(self.capabilities))
            raise Refused(f"{who} needs a subject with {capability!r}; {self.full_name} has {have or 'none'}")

    @property
    def full_name(self) -> str:
        """The model's name with the applied methods."""
        return "+".join([self.name, *self.stack])

    def text_tokenizer(self) -> Tokenizer:
        """The tokenizer, or a refusal where the subject has none."""
        if self.tokenizer is None:
            raise Refused(f"{self.name} has no tokenizer, so it cannot be asked in text")
        return self.tokenizer

    def score(self, requests: Sequence[ScoreRequest], batch_size: int = 8) -> list[Score]:
        """Log-probabilities of continuations after contexts."""
        self.require(SCORE, "scoring")
        with torch.inference_mode():
            return self.scorer.score(self, requests, batch_size)

    def generate(self, request: GenerateRequest) -> list[Generation]:
        """Continue prompts; every token is stamped."""
        self.require(GENERATE, "generation")
        longest = max(len(prompt) for prompt in request.prompts) + request.max_new_tokens
        if longest > self.max_length:
            raise UsageError(
                f"{longest} tokens (prompt and new) exceed the context of {self.max_length} of {self.name}"
            )
        with torch.inference_mode():
            return self.decoder.generate(self, request)
