"""Bytes: the 256 byte values and the model's special tokens. Lossless by construction; every text in its longest form.

A byte that is a token of the model keeps its row; one that is not (SmolLM2 lacks 21) gets the mean row.
"""

from harness.catalog import method
from harness.kinds.tokenizer import Properties, Specials, TableTokenizer, TokenizerMethod


@method(
    id="byte",
    kind="tokenizer",
    title="Bytes",
    guarantee="approximate",
    baseline="native",
    details={
        "special tokens": "the subject's, after the 256 bytes; text that looks like one stays text",
        "embeddings": "rows of the model's own byte tokens; missing bytes get the mean row",
        "training": "none: the model has hardly seen spelled-out text, so scores show the cost of a plain swap",
    },
)
class Byte(TokenizerMethod):
    """Ids 0 to 255 are the bytes."""

    properties = Properties(lossless=True, byte_complete=True)

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The byte tokenizer with the subject's special tokens."""
        return TableTokenizer(
            "byte", [bytes([b]) for b in range(256)], lambda text: list(text.encode()), Specials.of(tokenizer)
        )
