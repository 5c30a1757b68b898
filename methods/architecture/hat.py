"""A hierarchical autoregressive transformer: bytes of a word in, a backbone over words, bytes of the next word out.

Word i = bytes c_1 .. c_m and an end of word. Encoder: full attention within the word; e_i = W_up times its state at the
end. Backbone: causal over (start, e_1, e_2, ...), so that p_i has seen words up to i. Decoder: causal over (W_down p_i,
c_1, c_2, ...) of word i + 1, and predicts c_1, c_2, ..., end of word. Loss: mean cross-entropy of all symbols. Bits per
byte count the ends of words as well: they are an upper bound, as only one cut of a text into words is scored.
"""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.architecture import StepMethod
from harness.kinds.architecture.blocks import Blocks
from harness.kinds.architecture.words import WordBytes
from harness.kinds.architecture.wordwise import WordModel


@method(
    id="hat",
    kind="architecture",
    title="Hierarchical Autoregressive Transformers: Combining Byte- and Word-Level Processing",
    paper="arXiv:2501.10322",
    guarantee="approximate",
    baseline="tiny_llama",
    needs="minutes of training",
    details={
        "equations": "second hand: descriptions of the paper by others; layer shapes are ours",
        "rule": "space: paper, words end after blanks; parts: reconstruction of the released splitter 0.1.10 seen as a "
        "black box, equal on random ASCII and blanks, unlike it where a combining mark follows a blank or punctuation",
        "end of word": "an id of the tokenizer, so that scores hold its probability and a stop string may span it; the "
        "beginning and the end of a text end a word as well",
        "last word": "ours: no end of word after the last word of a text, as it may go on",
        "longest word": "ours: 32 bytes, then it is cut",
        "tables": "paper: encoder and decoder share one; ours: the head is tied to it",
        "decoder": "ours: reads the open word again at each step; its few ids need no cache",
        "pooling by cross-attention": "left out: that of the successor models",
    },
)
class Hat(StepMethod):
    """One step of the backbone a word."""

    hidden: int = Field(160, ge=8, description="width of the backbone")
    char_hidden: int = Field(64, ge=8, description="width of encoder and decoder")
    heads: int = Field(4, ge=1, description="attention heads of every layer")
    layers: int = Field(3, ge=1, description="layers of the backbone")
    encoder_layers: int = Field(2, ge=1, description="layers of the encoder")
    decoder_layers: int = Field(2, ge=1, description="layers of the decoder")
    rule: Literal["space", "parts"] = Field("space", description="where words begin")

    def tokenizer_of(self, subject):  # type: ignore[no-untyped-def]
        """Bytes with ends of words."""
        return WordBytes(self.rule)

    def build(self, subject):  # type: ignore[no-untyped-def]
        """Encoder, backbone and decoder with random weights."""
        inner = [Blocks(self.char_hidden, n, self.heads) for n in (self.encoder_layers, self.decoder_layers)]
        parts = inner[0], Blocks(self.hidden, self.layers, self.heads), inner[1]
        tokenizer = self.tokenizer_of(subject)
        return WordModel(tokenizer.vocab_size, tokenizer.prefix_id, 0, parts).to(subject.device)

    def check_twin(self):  # type: ignore[no-untyped-def]
        """Narrow, one layer each, three steps."""
        layers = {"layers": 1, "encoder_layers": 1, "decoder_layers": 1}
        return replace(self, steps=3, batch=2, length=24, hidden=24, char_hidden=16, heads=2, **layers)
