"""What a subject is asked and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """The log-probability of ``continuation`` after ``context`` (ids; the context has at least one)."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """Summed log-probability in nats, and whether greedy decoding would have produced the continuation."""

    logprob: float
    is_greedy: bool


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """A batch of prompts to continue.

    ``temperature`` 0 is greedy. ``processors`` are transformers logits processors, called with one row's own ids and
    scores. ``ignore_eos`` fixes the length, as every timed run does. ``seed`` and the row's number seed each row, so a
    row's text does not depend on the rest of the batch. ``forced`` holds a continuation for each prompt that is emitted
    instead of what a greedy decoder would pick, after the same work: two sides then decode one and the same text.
    """

    prompts: Sequence[Sequence[int]]
    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    processors: Sequence[Any] = ()
    stop_strings: tuple[str, ...] = ()
    eos_ids: tuple[int, ...] | None = None
    ignore_eos: bool = False
    seed: int = 0
    row_ids: Sequence[int] | None = None
    forced: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        if not self.prompts or any(len(p) == 0 for p in self.prompts):
            raise UsageError("a prompt has no tokens; give at least one (the tokenizer's prefix id does)")
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1 (got {self.max_new_tokens})")
        if self.forced is not None and (self.temperature or len(self.forced) != len(self.prompts)):
            raise UsageError("a forced continuation needs greedy decoding and one text a prompt")
        if self.temperature < 0:
            raise UsageError(f"temperature must not be negative (got {self.temperature})")


@dataclass
class Generation:
    """One continuation. ``stamps_s`` holds, for each token, the seconds from the request to its availability.

    ``steps`` is the number of tokens each decode forward emitted (1 for plain decoding). ``counts`` holds what has no
    noise (forwards, tokens forwarded, kept slots, bytes held); ``seconds`` the time by part (draft, verify).
    """

    prompt_tokens: int
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    stamps_s: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    stop_reason: str = "length"
    counts: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ttft_s(self) -> float:
        """Time to the first token."""
        return self.stamps_s[0]

    @property
    def tpot_s(self) -> float | None:
        """Mean time per output token after the first; None for a single token."""
        n = len(self.stamps_s)
        return (self.stamps_s[-1] - self.stamps_s[0]) / (n - 1) if n > 1 else None
