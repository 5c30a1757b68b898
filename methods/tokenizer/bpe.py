"""Byte-level BPE trained on a corpus: the most frequent adjacent pair becomes a token, again and again.

Text is cut into words by a regular expression, and merges stay within a word. The embeddings are transplanted: tokens
that the model has too keep their rows, the others begin with the mean of their old parts or as ``init`` says.
"""

from typing import Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.tokenizer.trained import TrainedBpe


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
        "init": "fvt: mean of the old parts' rows (arXiv:2402.09977); mean: the mean row; random: normal noise with "
        "the mean and deviation of each dimension; focus: sparsemax over spelling similarities to shared tokens "
        "(arXiv:2305.14481, whose space is fastText). No training after it",
    },
)
class Bpe(TrainedBpe):
    """``init`` says how the rows of tokens that the model lacks begin."""

    init: Literal["fvt", "mean", "random", "focus"] = Field("fvt", description="first rows of new tokens")
