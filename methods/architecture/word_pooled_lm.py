"""Learn Your Tokens: each word becomes n learnt vectors, a backbone reads these, all words are spelt at once from it.

Encoder: n prefix vectors stand before the bytes of a word, with full attention among all of them; the prefixes' states
are the word's vectors. Backbone: causal by word over all these vectors, n places a word, which see each other. Decoder
for word i + 1: the backbone's n outputs of word i, then the word's bytes, causal; it predicts the bytes and the end of
the word. Loss: mean cross-entropy of bytes and ends of words, which bits per byte count as well.
"""

from dataclasses import replace

from pydantic import Field

from harness.catalog import method
from harness.kinds.architecture import StepMethod
from harness.kinds.architecture.blocks import Blocks
from harness.kinds.architecture.words import WordBytes
from harness.kinds.architecture.wordwise import WordModel


@method(
    id="word_pooled_lm",
    kind="architecture",
    title="Learn Your Tokens: Word-Pooled Tokenization for Language Modeling",
    paper="arXiv:2310.11628",
    guarantee="approximate",
    baseline="tiny_llama",
    needs="minutes of training",
    claims=[
        {
            "metric": "next_word_acc",
            "value": 4.0,
            "against": "subword and byte models, times their accuracy (over 300% better)",
            "on": "abstract; the released validation samples for those and takes the best guess for word models",
        }
    ],
    details={
        "words": "paper: end after blanks; their base units here are bytes",
        "encoder's mask": "paper: full within the word; one released version is lower triangular, so that a "
        "prefix sees nothing of its word",
        "backbone's mask": "reconstruction: the n places of a word see each other, else causal",
        "layers": "reference code's encoder and decoder have 2; the backbone is smaller than its 8 layers of width 512",
        "prefixes": "reference code: 4 or 1",
        "end of word": "an id of the tokenizer; none after the last word of a text, as it may go on",
        "longest word": "ours: 32 bytes, then it is cut",
        "first word": "ours: spelt from n learnt vectors through the backbone",
        "dropout": "left out: no text comes again in the small budget",
    },
)
class WordPooledLM(StepMethod):
    """``prefixes`` places of the backbone a word, whatever its length."""

    hidden: int = Field(128, ge=8, description="width of encoder, backbone and decoder")
    heads: int = Field(4, ge=1, description="attention heads of every layer")
    layers: int = Field(3, ge=1, description="layers of the backbone")
    encoder_layers: int = Field(2, ge=1, description="layers of the encoder")
    decoder_layers: int = Field(2, ge=1, description="layers of the decoder")
    prefixes: int = Field(4, ge=1, le=16, description="learnt vectors of a word")

    def tokenizer_of(self, subject):  # type: ignore[no-untyped-def]
        """Bytes with ends of words after blanks."""
        return WordBytes("space")

    def build(self, subject):  # type: ignore[no-untyped-def]
        """Encoder, backbone and decoder of one width, with random weights."""
        parts = [Blocks(self.hidden, n, self.heads) for n in (self.encoder_layers, self.layers, self.decoder_layers)]
        tokenizer = self.tokenizer_of(subject)
        return WordModel(tokenizer.vocab_size, tokenizer.prefix_id, self.prefixes, parts).to(subject.device)

    def check_twin(self):  # type: ignore[no-untyped-def]
        """Narrow, one layer each, three steps."""
        layers = {"layers": 1, "encoder_layers": 1, "decoder_layers": 1}
        return replace(self, steps=3, batch=2, length=24, hidden=16, heads=2, **layers)
