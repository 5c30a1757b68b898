"""Tokenizers that take the longest unit at each place, from the left."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from harness.kinds.tokenizer.vocabulary import Specials, TableTokenizer


def longest_first(text: str, at: int, units: Collection[str], max_length: int) -> Iterator[str]:
    """Units that the text has at a place, the longest first; looks at ``max_length`` characters at most."""
    for end in range(min(len(text), at + max_length), at, -1):
        if text[at:end] in units:
            yield text[at:end]


class LongestMatch(TableTokenizer):
    """The 256 bytes and ``units``; text is read from the left, always by the longest unit, else by a character's bytes.

    The work for a text is at most its length times that of the longest unit.
    """

    def __init__(self, name: str, units: Sequence[str], specials: Specials) -> None:
        self._ids = {unit: 256 + i for i, unit in enumerate(units)}
        self._longest = max(map(len, units), default=1)
        tokens = [*(bytes([b]) for b in range(256)), *(unit.encode() for unit in units)]
        super().__init__(name, tokens, self._read, specials)

    def _read(self, text: str) -> list[int]:
        ids: list[int] = []
        at = 0
        while at < len(text):
            unit = next(longest_first(text, at, self._ids, self._longest), None)
            ids += text[at].encode() if unit is None else [self._ids[unit]]
            at += 1 if unit is None else len(unit)
        return ids
