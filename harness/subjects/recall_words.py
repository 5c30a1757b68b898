"""The vocabulary of the model ``tiny-recall``: all that the long-context tasks say, a word or a digit a token."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from harness.errors import UsageError
from tasks.words import COLORS, COMMON, FILLERS, NAMES

PIECE = re.compile(r" ?(?:[A-Za-z]+|[0-9]|->|[.?:,])|\n")
"""A word, a digit or a mark, with the space before it; or the end of a line."""
FORMS = (
    "The special magic number for is . What is the special magic number for ?",
    "The pass key of is . What is the pass key of ?",
    "Follow the arrows: -> .",
    "The most common words in the list above are ,",
)


class RecallWords:
    """One id a piece of text. Two more begin and end a text."""

    name = "recall-words"

    def __init__(self) -> None:
        texts = (*FORMS, *COMMON, *COLORS, *NAMES, *FILLERS, *string.digits)
        bare = sorted({piece.strip(" ") for text in texts for piece in PIECE.findall(text)})
        self.pieces = ["\n", *(space + piece for piece in bare for space in ("", " "))]
        self.ids = {piece: i for i, piece in enumerate(self.pieces)}
        self.prefix_id = len(self.pieces)
        self.eos_ids = (self.prefix_id + 1,)
        self.vocab_size = self.prefix_id + 2

    def encode(self, text: str) -> list[int]:
        """Ids of the pieces; :class:`UsageError` names what the vocabulary lacks."""
        pieces = PIECE.findall(text)
        unknown = [piece for piece in pieces if piece not in self.ids]
        if unknown or "".join(pieces) != text:
            what = f"the word {unknown[0].strip()!r}" if unknown else "other marks"
            raise UsageError(
                f"tiny-recall reads only the words of tasks such as zoo_ruler_multikey, not {what}; "
                "methods that calibrate take corpus=recall_text, decode workloads the prompts ruler"
            )
        return [self.ids[piece] for piece in pieces]

    def decode(self, ids: Sequence[int]) -> str:
        """The text, special ids left out."""
        return "".join(self.pieces[i] for i in ids if i < len(self.pieces))

    def token_bytes(self, token_id: int) -> bytes | None:
        """The piece, None for the special ids."""
        return self.pieces[token_id].encode() if token_id < len(self.pieces) else None
