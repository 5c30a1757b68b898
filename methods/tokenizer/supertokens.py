"""Supertokens: BPE over chunks of random length instead of words, so that frequent phrases become tokens.

Each training text is cut into chunks whose lengths are 1 + a negative binomial draw; most cuts are moved on to the next
beginning of a word. BPE merges within chunks. The tokenizer is used without chunks: text is cut at line ends alone.
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from harness.catalog import method
from harness.kinds.tokenizer import Properties
from harness.kinds.tokenizer.bpe import PATTERNS, MergesMethod, train_bpe

SUCCESSES = 2


def word_starts(text: str) -> list[int]:
    """Where the words of BPE's usual cut begin, and the end of the text."""
    words = Split(Regex(PATTERNS["gpt2"]), "isolated").pre_tokenize_str(text)
    return [start for _, (start, _) in words] + [len(text)]


def chunks(text: str, mean: float, snap: float, rng: np.random.Generator) -> Iterator[str]:
    """The text in chunks of ``mean`` characters; with probability ``snap`` a cut goes on to the next word."""
    starts, begin = word_starts(text), 0
    while begin < len(text):
        end = begin + 1 + int(rng.negative_binomial(SUCCESSES, SUCCESSES / (mean - 1 + SUCCESSES)))
        if rng.random() < snap:
            end = starts[np.searchsorted(starts, min(end, len(text)))]
        yield text[begin:end]
        begin = end


@method(
    id="supertokens",
    kind="tokenizer",
    title="Supertokens: BPE over random chunks",
    paper="arXiv:2505.09738",
    guarantee="approximate",
    baseline="native",
    needs="a trainer run of seconds to minutes",
    details={
        "chunk length": "reconstruction: 1 + negative binomial with two successes; the paper names no distribution",
        "cuts": "reconstruction: four of five are moved on to the beginning of a word, none falls inside a character",
        "separator": "ours: none; chunks go to the trainer one by one, which is what the paper's separator does",
        "encoding": "reconstruction: text is cut at line ends and after 512 characters",
        "embeddings": "mean of the old parts' rows (arXiv:2402.09977); the paper's transplant is a method of its own",
    },
)
class Supertokens(MergesMethod):
    """``vocab_size`` text tokens over chunks of ``mean_chunk`` characters."""

    vocab_size: int = Field(8192, ge=256, le=262144, description="text tokens, the 256 bytes included")
    mean_chunk: float = Field(24.0, ge=1, le=512, description="mean characters of a chunk before cuts are moved")
    snap: float = Field(0.8, ge=0, le=1, description="probability that a cut is moved on to the beginning of a word")
    digits: bool = Field(False, description="whether digits stay single")
    min_frequency: int = Field(2, ge=1, description="a rarer pair is not merged")
    corpus: str = Field("python_docs", description="corpus name, or path of a text file or folder")
    train_bytes: int = Field(4_000_000, ge=1, description="text to train on, at most")
    properties = Properties(lossless=True, byte_complete=True, crosses_words=True)

    def train(self, texts, seed):  # type: ignore[no-untyped-def]
        """The tokenizer as JSON; the seed draws the chunks."""
        rng = np.random.default_rng(seed)
        cut = (chunk for text in texts for chunk in chunks(text, self.mean_chunk, self.snap, rng))
        return train_bpe(cut, self.vocab_size, self.min_frequency, "lines_digits" if self.digits else "lines")
