"""Byte-level BPE as a tokenizer to put on a model: what the methods that differ in the rows they begin with share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from harness.kinds.method import Artifact, Workload
from harness.kinds.tokenizer.base import Properties
from harness.kinds.tokenizer.bpe import MergesMethod, merges_of, pair_table, train_bpe
from harness.kinds.tokenizer.merging import learn_merges
from harness.subjects.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TrainedBpe(MergesMethod):
    """``vocab_size`` text tokens, words cut by ``pattern``. The artifact is the tokenizer as JSON."""

    vocab_size: int = Field(8192, ge=256, le=262144, description="text tokens, the 256 bytes included")
    min_frequency: int = Field(2, ge=1, description="a rarer pair is not merged")
    pattern: Literal["gpt2", "digits", "cl100k", "marks", "none"] = Field(
        "gpt2", description="how text is cut into words"
    )
    corpus: str = Field("python_docs", description="corpus name, or path of a text file or folder")
    train_bytes: int = Field(4_000_000, ge=1, description="text to train on, at most")

    def declared(self, tokenizer: Tokenizer) -> Properties:
        """Without a pattern, tokens may grow across words."""
        return Properties(lossless=True, byte_complete=True, crosses_words=self.pattern == "none")

    def train(self, texts: Iterable[str], seed: int) -> Artifact:
        """The tokenizer as JSON."""
        return train_bpe(texts, self.vocab_size, self.min_frequency, self.pattern)

    def train_workload(self, texts: Sequence[str]) -> Workload:
        """Training to a small vocabulary, beside the trainer in Python; both return the merges."""
        size = min(self.vocab_size, 1024)
        return Workload(
            name="train",
            make=lambda: lambda: merges_of(train_bpe(texts, size, self.min_frequency, self.pattern)),
            reference=lambda: lambda: learn_merges(pair_table(texts, self.pattern), size, self.min_frequency),
            max_error=0.0,
            units={"bytes": sum(len(text.encode()) for text in texts)},
            details={"vocab_size": size},
        )
