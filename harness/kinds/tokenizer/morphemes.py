"""Words of Devanagari in morphemes before they are tokenized, by a table, with the sounds at their joints undone.

A word of the table is written as its morphemes with a joint between them, a token that covers no bytes. As sandhi
changes what stands at a joint, the morphemes' letters need not be the word's; decoding looks the word up again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from harness.errors import UsageError
from harness.kinds.tokenizer.bpe import ByteLevelTokenizer
from harness.kinds.tokenizer.lexicon import read_json
from harness.kinds.tokenizer.vocabulary import Specials, TableTokenizer

WORD = "[\u0900-\u0963\u0970-\u097f]+"
"""Letters and signs of Devanagari; not its digits and full stops."""
JOINT = "\udfff"
"""Between morphemes in memory: no text that can be encoded holds a lone surrogate."""
SHIPPED = {"hi": Path(__file__).with_name("morphemes_hi.json")}


class Morphemes:
    """A table of words and their morphemes; a word that it lacks stays whole."""

    def __init__(self, analyses: Mapping[str, Sequence[str]]) -> None:
        self.analyses = {word: tuple(parts) for word, parts in analyses.items()}
        # Of words with the same morphemes the first is what comes back.
        self._words = {JOINT.join(parts): word for word, parts in reversed(self.analyses.items())}

    @property
    def reversible(self) -> bool:
        """Whether no two words have the same morphemes, so that every text comes back."""
        return len(self._words) == len(self.analyses)

    def split(self, text: str) -> list[str]:
        """The text with its words in morphemes, cut at their joints."""
        return re.sub(WORD, lambda word: JOINT.join(self.analyses.get(word[0], (word[0],))), text).split(JOINT)

    def join(self, pieces: Sequence[str]) -> str:
        """The text of pieces; morphemes that are no word of the table are put together as they are."""
        found = re.sub(
            f"{WORD}(?:{JOINT}{WORD})+", lambda parts: self._words.get(parts[0], parts[0]), JOINT.join(pieces)
        )
        return found.replace(JOINT, "")


def load_morphemes(name: str) -> Morphemes:
    """The shipped toy table (``hi``), or a JSON object of words and lists of at least two morphemes.

    :class:`UsageError` where the file is not one, or holds other letters than Devanagari's.
    """
    path = SHIPPED.get(name, Path(name).expanduser())
    try:
        table = TypeAdapter(dict[str, list[str]]).validate_python(read_json(path, "table of morphemes"))
    except ValidationError as error:
        raise UsageError(f"{name!r} is no table of morphemes: it needs an object of words and lists of text") from error
    for word, parts in table.items():
        if len(parts) < 2 or not all(re.fullmatch(WORD, part) for part in (word, *parts)):
            raise UsageError(f"{name!r}: {word!r} needs two morphemes or more, all in letters of Devanagari")
    return Morphemes(table)


class MorphemeTokenizer(TableTokenizer):
    """A byte-level tokenizer over the morphemes of the words; the joint is its last text token."""

    def __init__(self, base: ByteLevelTokenizer, morphemes: Morphemes, specials: Specials, name: str) -> None:
        self._base, self._morphemes, self._joint = base, morphemes, len(base.tokens)
        super().__init__(name, [*base.tokens, b""], self._written, specials, base.forget)

    def _written(self, text: str) -> list[int]:
        first, *others = (self._base.encode(piece) for piece in self._morphemes.split(text))
        return first + [i for piece in others for i in (self._joint, *piece)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, words of the table as they are written."""
        pieces: list[list[int]] = [[]]
        for i in ids:
            if i == self._joint:
                pieces.append([])
            else:
                pieces[-1].append(i)
        return self._morphemes.join([super(MorphemeTokenizer, self).decode(piece) for piece in pieces])
