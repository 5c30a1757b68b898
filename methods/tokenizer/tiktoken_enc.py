"""The library tiktoken: BPE whose merges are the ranks of whole tokens.

In a word, of all adjacent pairs whose bytes together are a token, the one of the lowest rank is merged, until none is
left. The ranks come from a file that the user has (``ranks``), else from BPE trained here, so that the library can be
compared on one vocabulary. The library's own vocabularies are downloads and are not fetched.
"""

import base64
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from tokenizers import Tokenizer as RustTokenizer

from harness.catalog import method
from harness.kinds.method import Workload
from harness.kinds.tokenizer import Properties, Specials, TokenizerMethod
from harness.kinds.tokenizer.adapters import from_tiktoken, merges_from_ranks, optional, read_ranks
from harness.kinds.tokenizer.base import content_name, unseen_texts
from harness.kinds.tokenizer.bpe import PATTERNS, ByteLevelTokenizer, bpe_state, merges_of, tokens_of, train_bpe


@method(
    id="tiktoken_enc",
    kind="tokenizer",
    title="tiktoken",
    guarantee="approximate",
    baseline="native",
    needs="the package tiktoken (pip install 'token-zoo[tokenizers]')",
    details={
        "ranks": "a .tiktoken file, else BPE of the zoo's own training; nothing is downloaded",
        "special tokens": "the subject's, after the ranks; text that looks like one stays text",
        "workload encode": "beside the Rust library tokenizers on the same merges, which gives the same ids",
        "embeddings": "mean of the old parts' rows (arXiv:2402.09977), no training after it",
    },
)
class TiktokenEnc(TokenizerMethod):
    """The ranks of a file, or of ``vocab_size`` tokens trained on ``corpus``."""

    trains: ClassVar[bool] = True

    ranks: str = Field("", description="path of a .tiktoken file; empty: BPE is trained")
    vocab_size: int = Field(8192, ge=256, le=262144, description="text tokens where they are trained")
    pattern: Literal["gpt2", "digits", "cl100k", "marks"] = Field("gpt2", description="how text is cut into words")
    corpus: str = Field("python_docs", description="corpus name, or path of a text file or folder")
    train_bytes: int = Field(4_000_000, ge=1, description="text to train on, at most")

    def declared(self, tokenizer) -> Properties:  # type: ignore[no-untyped-def]
        """A file's tokens may hold anything."""
        return Properties(lossless=True, byte_complete=True, crosses_words=bool(self.ranks))

    def train(self, texts, seed):  # type: ignore[no-untyped-def]
        """The tokens in base64 in the order of their ranks, a line each."""
        if self.ranks:
            tokens = read_ranks(Path(self.ranks))
        else:
            tokens = tokens_of(merges_of(train_bpe(texts, self.vocab_size, pattern=self.pattern)))
        return "\n".join(base64.b64encode(token).decode() for token in tokens)

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The library's encoding with the subject's special tokens."""
        ranks = {base64.b64decode(line): rank for rank, line in enumerate(artifact.split("\n"))}
        name = content_name("tiktoken_enc", f"{self.pattern}\n{artifact}")
        encoding = optional("tiktoken").Encoding(
            name, pat_str=PATTERNS[self.pattern], mergeable_ranks=ranks, special_tokens={}
        )
        return from_tiktoken(encoding, Specials.of(tokenizer), name)

    def workloads(self, subject) -> Iterable[Workload]:  # type: ignore[no-untyped-def]
        """The kind's; ``encode`` is paired with the Rust library on the same tokens."""

        def reference():  # type: ignore[no-untyped-def]
            tokens = self.tokenizer_of(subject).tokens
            rust = RustTokenizer.from_str(bpe_state(merges_from_ranks(tokens), self.pattern))
            return self.encode_call(ByteLevelTokenizer(rust, Specials.of(subject.tokenizer), "rust"), unseen_texts())

        for workload in super().workloads(subject):
            paired = workload.name == "encode"
            yield replace(workload, reference=reference, max_error=0.0) if paired else workload
