"""BPE-dropout: training text in which merges are left out at random, so that a model sees a word cut in many ways.

The tokenizer is plain BPE. While a word is being merged, each occurrence of a pair is passed over with probability p at
every step: p = 0 is BPE, p = 1 bytes. At evaluation nothing is left out.
"""

import random
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.tokenizer import Properties
from harness.kinds.tokenizer.bpe import MergesMethod, merges_of, train_bpe
from harness.kinds.tokenizer.consistency import DrawsSegmentations
from harness.kinds.tokenizer.merging import apply_merges


@method(
    id="bpe_dropout",
    kind="tokenizer",
    title="BPE-dropout",
    paper="arXiv:1910.13267",
    guarantee="approximate",
    baseline="native",
    needs="a trainer run of seconds",
    details={
        "dropout": "paper: 0.1 while training, 0 at evaluation",
        "drawing": "the paper's law, seeded by document, in Python. The Rust library cannot be seeded, and an outdated "
        "entry of its queue gives passed-over pairs another chance in the same step",
        "training": "not offered: tasks read canonical ids; the probe resegmentation shows the model's gap",
        "embeddings": "mean of the old parts' rows (arXiv:2402.09977), no training after it",
    },
)
class BpeDropout(DrawsSegmentations, MergesMethod):
    """BPE with ``vocab_size`` text tokens, from which segmentations are drawn."""

    dropout: float = Field(0.1, ge=0, le=1, description="probability that an occurrence of a pair is passed over")
    seed: int = Field(0, ge=0, description="seed of the drawing")
    vocab_size: int = Field(8192, ge=256, le=262144, description="text tokens, the 256 bytes included")
    min_frequency: int = Field(2, ge=1, description="a rarer pair is not merged")
    pattern: Literal["gpt2", "digits", "cl100k", "marks"] = Field("gpt2", description="how text is cut into words")
    corpus: str = Field("python_docs", description="corpus name, or path of a text file or folder")
    train_bytes: int = Field(4_000_000, ge=1, description="text to train on, at most")

    def declared(self, tokenizer) -> Properties:  # type: ignore[no-untyped-def]
        """BPE's; segmentations can be drawn."""
        return Properties(lossless=True, byte_complete=True, stochastic=True)

    def train(self, texts, seed):  # type: ignore[no-untyped-def]
        """The tokenizer as JSON: plain BPE."""
        return train_bpe(texts, self.vocab_size, self.min_frequency, self.pattern)

    def drawer(self, tokenizer) -> Callable[[str, random.Random], list[int]]:  # type: ignore[no-untyped-def]
        """Each word merged with dropout."""
        ids = {token: i for i, token in enumerate(tokenizer.tokens)}
        merges = merges_of(tokenizer.rust.to_str())
        ranks = {(ids[a], ids[b]): (rank, ids[a + b]) for rank, (a, b) in enumerate(merges)}
        letters = tokenizer.rust.get_vocab()

        def draw(text: str, rng: random.Random) -> list[int]:
            words = tokenizer.words(text)
            return [i for word in words for i in apply_merges([letters[c] for c in word], ranks, self.dropout, rng)]

        return draw

    def encode_call(self, tokenizer, texts) -> Callable[[], int]:  # type: ignore[no-untyped-def]
        """Drawing a segmentation of each text, as a training run would."""
        draw = self.drawer(tokenizer)
        return lambda: sum(len(draw(text, random.Random(i))) for i, text in enumerate(texts))
