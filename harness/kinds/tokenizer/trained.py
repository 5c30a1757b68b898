"""Byte-level BPE as a tokenizer to put on a model: what the methods that differ in the rows they begin with share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from harness.kinds.method import Artifact, Workload
from harness.kinds.tokenizer.base import Properties, TokenizerMethod
from harness.kinds.tokenizer.bpe import bpe_tokenizer, learn_merges, merges_of, train_bpe, word_counts
from harness.kinds.tokenizer.vocabulary import Specials
from harness.subjects.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TrainedBpe(TokenizerMethod):
    """``vocab_size`` text tokens, words cut by ``pattern``. The artifact is the tokenizer as JSON."""

    trains: ClassVar[bool] = True

    vocab_size: int = Field(8192, ge=256, le=262144, description="text tokens, the 256 bytes included")
    min_frequency: int = Field(2, ge=1, description="a rarer pair is not merged")
    pattern: Literal["gpt2", "digits", "cl100k", "none"] = Field("gpt2", description="how text is cut into words")
    corpus: str = Field("python_docs", description="corpus name, or path of a text file or folder")
    train_bytes: int = Field(4_000_000, ge=1, description="text to train on, at most")

    def declared(self, tokenizer: Tokenizer) -> Properties:
        """Without a pattern, tokens may grow across words."""
        return Properties(lossless=True, byte_complete=True, crosses_words=self.pattern == "none")

    def train(self, texts: Iterable[str], seed: int) -> Artifact:
        """The tokenizer as JSON."""
        return train_bpe(texts, self.vocab_size, self.min_frequency, self.pattern)

    def make(self, tokenizer: Tokenizer, artifact: Artifact) -> Tokenizer:
        """The trained tokenizer with the subject's special tokens."""
        # Requests are cached under the name, so tokenizers that differ must differ in it.
        content = hashlib.sha256(artifact.encode()).hexdigest()[:8]
        return bpe_tokenizer(artifact, Specials.of(tokenizer), f"bpe-{self.vocab_size}-{content}")

    def train_workload(self, texts: Sequence[str]) -> Workload:
        """Training to a small vocabulary, beside the same written plainly in Python; both return the merges."""
        # Without words every merge reads the whole text again, so the plain side is given fewer.
        merges = min(self.vocab_size, 320 if self.pattern == "none" else 1024) - 256
        return Workload(
            name="train",
            make=lambda: lambda: merges_of(train_bpe(texts, 256 + merges, self.min_frequency, self.pattern)),
            reference=lambda: lambda: learn_merges(word_counts(texts, self.pattern), merges, self.min_frequency),
            max_error=0.0,
            units={"bytes": sum(len(text.encode()) for text in texts)},
            details={"merges": merges},
        )
