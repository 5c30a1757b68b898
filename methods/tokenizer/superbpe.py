"""SuperBPE: BPE within words first, then across them.

The first ``transition`` tokens are learnt by ordinary BPE. Then the words are joined again (text is cut only at line
ends, digits and runs of punctuation) and learning goes on from the same merges, so that later tokens may hold blanks.
Encoding applies all merges in the order they were learnt, under the second cut.
"""

from pydantic import Field

from harness.catalog import method
from harness.kinds.tokenizer import Properties
from harness.kinds.tokenizer.bpe import MergesMethod, bpe_state, merges_of, pair_table, train_bpe
from harness.kinds.tokenizer.merging import learn_merges


@method(
    id="superbpe",
    kind="tokenizer",
    title="SuperBPE",
    paper="arXiv:2503.13423",
    guarantee="approximate",
    baseline="native",
    needs="a trainer run of about a minute",
    claims=[
        {"metric": "mean accuracy of 30 tasks", "value": "+4.0 points", "against": "BPE", "on": "8B, 200k tokens"},
        {"metric": "inference compute", "value": "-27 %", "against": "BPE", "on": "8B, 200k tokens"},
    ],
    details={
        "transition": "reference code inherits 100,000 of 128,000 merges; the default keeps that share",
        "second cut": "reference code: digits by three, runs of punctuation, extra blanks; ours: line ends too",
        "second stage": "reconstruction: in Python, as the Rust trainer cannot resume",
        "embeddings": "mean of the old parts' rows (arXiv:2402.09977), no training after it",
    },
)
class SuperBpe(MergesMethod):
    """``vocab_size`` text tokens, of which the first ``transition`` stay within words."""

    vocab_size: int = Field(8192, ge=256, le=262144, description="text tokens, the 256 bytes included")
    transition: int = Field(6400, ge=256, description="tokens after which merges may cross words")
    min_frequency: int = Field(2, ge=1, description="a rarer pair is not merged")
    corpus: str = Field("python_docs", description="corpus name, or path of a text file or folder")
    train_bytes: int = Field(4_000_000, ge=1, description="text to train on, at most")

    def declared(self, tokenizer) -> Properties:  # type: ignore[no-untyped-def]
        """Tokens cross words where there is a second stage."""
        return Properties(lossless=True, byte_complete=True, crosses_words=self.transition < self.vocab_size)

    def train(self, texts, seed):  # type: ignore[no-untyped-def]
        """The tokenizer as JSON; plain BPE where ``transition`` is not below ``vocab_size``."""
        within = train_bpe(texts, min(self.transition, self.vocab_size), self.min_frequency)
        if self.transition >= self.vocab_size:
            return within
        first = merges_of(within)
        across = learn_merges(pair_table(texts, "superbpe", first), self.vocab_size, self.min_frequency)
        return bpe_state([*first, *across], "superbpe")
