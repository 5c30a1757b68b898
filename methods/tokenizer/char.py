"""Characters: the code points of a corpus, and bytes for all others.

Every text can be encoded. The embeddings are transplanted: a character that the model has as a token keeps its row.
"""

from collections import Counter
from typing import ClassVar

from pydantic import Field

from harness.catalog import method
from harness.kinds.tokenizer import Properties, Specials, TableTokenizer, TokenizerMethod
from harness.kinds.tokenizer.base import content_name


@method(
    id="char",
    kind="tokenizer",
    title="Characters with byte fallback",
    guarantee="approximate",
    baseline="native",
    needs="a corpus to read once",
    details={
        "vocabulary": "the 256 bytes, which hold ASCII, then other code points, the most frequent first",
        "fallback": "a code point that is no token is written as its bytes",
        "training": "none of the model: scores show the cost of a plain swap",
    },
)
class Char(TokenizerMethod):
    """One token a code point that occurs at least ``min_frequency`` times."""

    trains: ClassVar[bool] = True
    properties = Properties(lossless=True, byte_complete=True)

    min_frequency: int = Field(1, ge=1, description="a rarer code point stays bytes")
    corpus: str = Field("python_docs", description="corpus name, or path of a text file or folder")
    train_bytes: int = Field(4_000_000, ge=1, description="text to read, at most")

    def train(self, texts, seed):  # type: ignore[no-untyped-def]
        """The code points beyond ASCII as one string."""
        counts = Counter(c for text in texts for c in text if c > "\x7f" and not "\ud800" <= c <= "\udfff")
        kept = [c for c, count in counts.items() if count >= self.min_frequency]
        return "".join(sorted(kept, key=lambda c: (-counts[c], c)))

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The character tokenizer with the subject's special tokens."""
        own = {c: (256 + i,) for i, c in enumerate(artifact)}
        tokens = [*(bytes([b]) for b in range(256)), *(c.encode() for c in artifact)]

        def encode(text: str) -> list[int]:
            return [i for c in text for i in own.get(c) or c.encode()]

        return TableTokenizer(content_name("char", artifact), tokens, encode, Specials.of(tokenizer))
