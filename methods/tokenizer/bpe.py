"""Byte-level BPE trained on a corpus: the most frequent adjacent pair becomes a token, again and again.

Text is cut into words by a regular expression, and merges stay within a word. The embeddings are transplanted: tokens
that the model has too keep their rows, the others get the mean of their old parts.
"""

from typing import Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.method import Workload
from harness.kinds.tokenizer import Properties
from harness.kinds.tokenizer.bpe import MergesMethod, merges_of, pair_table, train_bpe
from harness.kinds.tokenizer.merging import learn_merges


@method(
    id="bpe",
    kind="tokenizer",
    title="Byte-level BPE",
    paper="arXiv:1508.07909",
    guarantee="approximate",
    baseline="native",
    needs="a trainer run of seconds",
    details={
        "trainer": "the Rust library tokenizers; equal counts go to the pair with the smaller ids",
        "alphabet": "all 256 bytes from the start, so that every text can be encoded",
        "vocab_size": "bytes and merges; the subject's special tokens come on top",
        "corpus": "prose of the Python documentation by default, which the zoo's bits-per-byte passages also come from",
        "embeddings": "mean of the old parts' rows (arXiv:2402.09977), no training after it",
    },
)
class Bpe(MergesMethod):
    """``vocab_size`` text tokens, words cut by ``pattern``."""

    vocab_size: int = Field(8192, ge=256, le=262144, description="text tokens, the 256 bytes included")
    min_frequency: int = Field(2, ge=1, description="a rarer pair is not merged")
    pattern: Literal["gpt2", "digits", "cl100k", "marks", "none"] = Field(
        "gpt2", description="how text is cut into words"
    )
    corpus: str = Field("python_docs", description="corpus name, or path of a text file or folder")
    train_bytes: int = Field(4_000_000, ge=1, description="text to train on, at most")

    def declared(self, tokenizer) -> Properties:  # type: ignore[no-untyped-def]
        """Without a pattern, tokens may grow across words."""
        return Properties(lossless=True, byte_complete=True, crosses_words=self.pattern == "none")

    def train(self, texts, seed):  # type: ignore[no-untyped-def]
        """The tokenizer as JSON."""
        return train_bpe(texts, self.vocab_size, self.min_frequency, self.pattern)

    def train_workload(self, texts) -> Workload:  # type: ignore[no-untyped-def]
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
