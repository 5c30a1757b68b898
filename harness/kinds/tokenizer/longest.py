"""Tokenizers that take the longest unit at each place, from the left, or the next shorter one where it reads better."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from harness.kinds.tokenizer.vocabulary import Specials, TableTokenizer

HORIZON = 64
"""Characters after which two ways of reading that have not met are taken for equally good."""


def longest_first(text: str, at: int, units: Collection[str], max_length: int) -> Iterator[str]:
    """Units that the text has at a place, the longest first; looks at ``max_length`` characters at most."""
    for end in range(min(len(text), at + max_length), at, -1):
        if text[at:end] in units:
            yield text[at:end]


def next_unit(text: str, at: int, ranks: Mapping[str, int], max_length: int) -> tuple[str, int | None]:
    """The longest unit at a place and its rank, else the character there and None."""
    found = next(longest_first(text, at, ranks, max_length), None)
    return (text[at], None) if found is None else (found, ranks[found])


@dataclass
class Way:
    """One way of reading from a place: where it has come to, unknown characters, units, and the sum of their ranks."""

    end: int
    cost: tuple[int, int, int] = (0, 0, 0)

    def take(self, unit: str, rank: int | None) -> Way:
        """Go on by a unit; ``rank`` None: a character that is no unit."""
        self.end += len(unit)
        unknown, units, ranks = self.cost
        self.cost = (unknown + 1, units, ranks) if rank is None else (unknown, units + 1, ranks + rank)
        return self


class LongestMatch(TableTokenizer):
    """The 256 bytes and ``units``; text is read from the left, always by the longest unit, else by a character's bytes.

    The work for a text is at most its length times that of the longest unit.
    """

    def __init__(self, name: str, units: Sequence[str], specials: Specials) -> None:
        self._ids = {unit: 256 + i for i, unit in enumerate(units)}
        self._longest = max(map(len, units), default=1)
        tokens = [*(bytes([b]) for b in range(256)), *(unit.encode() for unit in units)]
        super().__init__(name, tokens, self._read, specials)

    def _unit(self, text: str, at: int) -> str | None:
        """The unit to take at a place, None where there is none."""
        return next(longest_first(text, at, self._ids, self._longest), None)

    def _read(self, text: str) -> list[int]:
        ids: list[int] = []
        at = 0
        while at < len(text):
            unit = self._unit(text, at)
            ids += text[at].encode() if unit is None else [self._ids[unit]]
            at += 1 if unit is None else len(unit)
        return ids


class LookAhead(LongestMatch):
    """As :class:`LongestMatch`, but the longest unit gives way to the next shorter one where that one reads better.

    Both ways go on by longest units until they meet. The longest unit loses where its way has more unknown characters,
    else more units, else the larger sum of ranks. ``ranks`` holds all known units, single bytes too, the best first.
    The work for a text is at most its length times that of the longest unit and ``HORIZON``.
    """

    def __init__(self, name: str, units: Sequence[str], ranks: Mapping[str, int], specials: Specials) -> None:
        super().__init__(name, units, specials)
        self._ranks = ranks

    def _unit(self, text: str, at: int) -> str | None:
        found = [*islice(longest_first(text, at, self._ranks, self._longest), 2)]
        if not found:
            return None
        unit = found[1] if len(found) == 2 and self._loses(text, at, *found) else found[0]
        return unit if unit in self._ids else None

    def _loses(self, text: str, at: int, long: str, short: str) -> bool:
        ways = [Way(at).take(unit, self._ranks[unit]) for unit in (long, short)]
        while ways[0].end != ways[1].end:
            behind = min(ways, key=lambda way: way.end)
            if behind.end - at > HORIZON:
                return False
            behind.take(*next_unit(text, behind.end, self._ranks, self._longest))
        return ways[0].cost > ways[1].cost
