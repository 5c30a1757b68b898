"""BPE in Python with hooks: the pairs of a corpus, merged one by one, and merges applied to a text with dropout.

Training holds all words as one row of ids and, for each adjacent pair, its count and its places. A merge touches the
places of its pair alone, and a heap gives the pair to merge next, so the work is that of the occurrences merged.
Without hooks the merges are those of the Rust trainer, in its order.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

Pair = tuple[int, int]
MayMerge = Callable[[bytes, bytes], bool]
"""Whether the tokens with these bytes may become one."""

_GAP = -1
"""Stands between words, and at places that a merge has emptied."""


class PairTable:
    """Adjacent pairs within words, their counts and places.

    ``tokens`` are the bytes of the ids so far, ``words`` maps ids of a word to how often it occurs. A pair that
    ``may_merge`` refuses is never counted. ``touched`` is the number of places visited: what the work grows with.
    """

    def __init__(
        self, tokens: Sequence[bytes], words: Mapping[tuple[int, ...], int], may_merge: MayMerge | None = None
    ) -> None:
        self.tokens = list(tokens)
        self.by_bytes = {token: i for i, token in enumerate(self.tokens)}
        self.counts: dict[Pair, int] = {}
        self.touched = 0
        self._may_merge = may_merge
        self._where: defaultdict[Pair, set[int]] = defaultdict(set)
        self._row, self._weight = [_GAP], [0]
        for word, weight in words.items():
            self._row += [*word, _GAP]
            self._weight += [weight] * (len(word) + 1)
        self._before = list(range(-1, len(self._row) - 1))
        self._after = list(range(1, len(self._row) + 1))
        for place in range(len(self._row) - 1):
            self._add(place, place + 1)
        self._heap = [(-count, pair) for pair, count in self.counts.items()]
        heapq.heapify(self._heap)

    def best(self, how_many: int = 1) -> list[Pair]:
        """The most frequent pairs, most frequent first; of equals the one with the smaller ids."""
        found: list[tuple[int, Pair]] = []
        while self._heap and len(found) < how_many:
            entry = heapq.heappop(self._heap)
            count = self.counts.get(entry[1], 0)
            if count != -entry[0]:
                # Counts that rose have an entry of their own; one that fell comes back where it belongs.
                if 0 < count < -entry[0]:
                    heapq.heappush(self._heap, (-count, entry[1]))
            elif not found or entry != found[-1]:
                found.append(entry)
        for entry in found:
            heapq.heappush(self._heap, entry)
        return [pair for _, pair in found]

    def merge(self, pair: Pair) -> int:
        """Make one token of every occurrence of the pair, from the left; returns its id."""
        made = self._id(pair)
        risen: set[Pair] = set()
        for place in sorted(self._where.pop(pair, ())):
            after = self._after[place]
            if (self._row[place], self._row[after]) != pair:
                continue  # an occurrence that overlapped the one before it
            self.touched += 1
            before, beyond = self._before[place], self._after[after]
            self._remove(before, place)
            self._remove(after, beyond)
            self._row[place], self._row[after] = made, _GAP
            self._after[place], self._before[beyond] = beyond, place
            risen.update(filter(None, (self._add(before, place), self._add(place, beyond))))
        self.counts.pop(pair, None)
        for new in risen & self.counts.keys():
            heapq.heappush(self._heap, (-self.counts[new], new))
        return made

    def _id(self, pair: Pair) -> int:
        """The id of the joined bytes: of two pairs with the same bytes the later one finds the token there."""
        joined = self.tokens[pair[0]] + self.tokens[pair[1]]
        if joined not in self.by_bytes:
            self.by_bytes[joined] = len(self.tokens)
            self.tokens.append(joined)
        return self.by_bytes[joined]

    def _add(self, place: int, after: int) -> Pair | None:
        """Count the pair at a place; None where there is none or it may not merge."""
        pair = (self._row[place], self._row[after])
        if _GAP in pair:
            return None
        if self._may_merge is not None and not self._may_merge(self.tokens[pair[0]], self.tokens[pair[1]]):
            return None
        self.counts[pair] = self.counts.get(pair, 0) + self._weight[place]
        self._where[pair].add(place)
        return pair

    def _remove(self, place: int, after: int) -> None:
        pair = (self._row[place], self._row[after])
        if pair in self.counts:
            self.counts[pair] -= self._weight[place]
            self._where[pair].discard(place)
            if not self.counts[pair]:
                del self.counts[pair]


def learn_merges(table: PairTable, vocab_size: int, min_frequency: int = 2) -> list[tuple[bytes, bytes]]:
    """Merge the most frequent pair until there are ``vocab_size`` tokens or no pair is frequent enough."""
    merges: list[tuple[bytes, bytes]] = []
    while len(table.tokens) < vocab_size and (best := table.best()):
        if table.counts[best[0]] < max(min_frequency, 1):
            break
        merges.append((table.tokens[best[0][0]], table.tokens[best[0][1]]))
        table.merge(best[0])
    return merges


Ranks = Mapping[Pair, tuple[int, int]]
"""For each pair that merges, its rank (the smallest merges first) and the id it becomes."""


def apply_merges(ids: Sequence[int], ranks: Ranks, dropout: float = 0.0, rng: random.Random | None = None) -> list[int]:
    """The word's ids after all merges in the order of their ranks, of equals the leftmost.

    With ``dropout``, at every step each occurrence of a pair is passed over with that probability, and the best of
    those left is merged; the word is done when none is left (arXiv:1910.13267). The rate 1 gives back ``ids``.
    """
    row, after = list(ids), list(range(1, len(ids) + 1))
    before = list(range(-1, len(ids) - 1))
    heap: list[tuple[int, int, Pair]] = []

    def offer(place: int) -> None:
        if place >= 0 and after[place] < len(row):
            pair = (row[place], row[after[place]])
            if pair in ranks:
                heapq.heappush(heap, (ranks[pair][0], place, pair))

    for place in range(len(row)):
        offer(place)
    passed: list[tuple[int, int, Pair]] = []
    while heap:
        entry = heapq.heappop(heap)
        _, place, pair = entry
        if row[place] != pair[0] or after[place] >= len(row) or row[after[place]] != pair[1]:
            continue  # a neighbour has merged since
        if rng is not None and rng.random() < dropout:
            passed.append(entry)
            continue
        gone = after[place]
        row[place], row[gone] = ranks[pair][1], _GAP
        after[place] = after[gone]
        if after[gone] < len(row):
            before[after[gone]] = place
        for waiting in passed:
            heapq.heappush(heap, waiting)
        passed.clear()
        offer(place)
        offer(before[place])
    return [i for i in row if i != _GAP]
