"""Numbers in a text, and tokenizers that write them in chunks of their own and the rest as a base tokenizer does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from harness.errors import Refused
from harness.kinds.tokenizer.base import forget_words
from harness.kinds.tokenizer.vocabulary import Specials, TableTokenizer, Vocabulary, segments, special_names
from harness.subjects.tokenizer import Tokenizer

PLAIN = re.compile(r"()([0-9]+)(?:\.([0-9]+))?()")
WRITTEN = re.compile(
    r"((?<![\w.,)])[+-])?((?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+)(?!\w))?"
)


class Number(NamedTuple):
    """A number as it stands at ``text[start:end]``; parts that it lacks are empty. ``integer`` has no separators."""

    start: int
    end: int
    sign: str
    integer: str
    fraction: str
    exponent: str


def _written(plain: bool) -> re.Pattern[str]:
    return PLAIN if plain else WRITTEN


def iter_numbers(text: str, plain: bool = False) -> Iterator[Number]:
    """The numbers of a text, in order: ASCII digits with sign, thousands separators, fraction and exponent.

    ``plain``: digits and a fraction alone, so that what is spanned is exactly ``integer[.fraction]``. A sign counts
    where no operand stands before it.
    """
    for found in _written(plain).finditer(text):
        sign, integer, fraction, exponent = (part or "" for part in found.groups())
        yield Number(found.start(), found.end(), sign, integer.replace(",", ""), fraction, exponent)


def chunk(digits: str, size: int, from_right: bool) -> list[str]:
    """Digits in chunks of ``size``; the odd chunk is the last one, or the first one when cut from the right."""
    odd = len(digits) % size if from_right else 0
    cuts = [0, *range(odd or size, len(digits), size), len(digits)]
    return [digits[a:b] for a, b in pairwise(cuts) if a < b]


def digit_strings(longest: int) -> list[str]:
    """All strings of 1 to ``longest`` digits."""
    return [f"{n:0{width}d}" for width in range(1, longest + 1) for n in range(10**width)]


Cut = Callable[[Number], list[int] | None]
"""Ids of a number, None where the base tokenizer writes it."""


class NumberTable:
    """The base tokenizer's text tokens with room for more behind them; specials come last."""

    def __init__(self, base: Tokenizer) -> None:
        if segments(base, "a b") != segments(base, "a") + segments(base, " b"):
            raise Refused(f"{base.name} writes a text otherwise when it is cut, so numbers cannot be taken out of it")
        self.base = base
        held = Vocabulary(base)
        old_ids = [i for i, token in enumerate(held.tokens) if token is not None]
        self.tokens = [token for token in held.tokens if token is not None]
        self._of_base = {old: new for new, old in enumerate(old_ids)}
        self._by_bytes = {token: self._of_base[i] for token, i in held.by_bytes.items()}

    def held(self, token: str) -> int:
        """The id of a text token, which is added where it is lacking."""
        data = token.encode()
        if data not in self._by_bytes:
            self._by_bytes[data] = self.added(token)
        return self._by_bytes[data]

    def added(self, token: str) -> int:
        """A new id that covers these bytes, whatever others do."""
        self.tokens.append(token.encode())
        return len(self.tokens) - 1

    def tokenizer(self, name: str, cut: Cut, plain: bool = True) -> TableTokenizer:
        """The tokenizer over all tokens so far, to be called once."""
        specials = Specials.of(self.base)
        names = special_names(self.base)
        place = {n: len(self.tokens) + k for k, n in enumerate(specials.names)}
        new_id = (self._of_base | {i: place[n] for n, i in names.items()}).__getitem__

        @lru_cache(maxsize=1 << 14)
        def ids_of(written: str) -> list[int] | None:
            # Most numbers of a text come again, and a number's own text is read as it was in its place.
            return cut(next(iter_numbers(written, plain)))

        def encode(text: str) -> list[int]:
            ids: list[int] = []
            done = 0
            for found in _written(plain).finditer(text):
                written = ids_of(found[0])
                if written is None:
                    continue
                start = found.start() + len(found[1] or "")
                ids += map(new_id, self.base.encode(text[done:start])) if done < start else ()
                ids += written
                done = found.end()
            ids += map(new_id, self.base.encode(text[done:])) if done < len(text) else ()
            return ids

        def forget() -> None:
            forget_words(self.base)
            ids_of.cache_clear()

        return TableTokenizer(f"{self.base.name}-{name}", self.tokens, encode, specials, forget)
