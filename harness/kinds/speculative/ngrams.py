"""Where the n-grams of a text last ended: the source of prompt lookup."""

from __future__ import annotations

from collections.abc import Sequence


class TextNgrams:
    """The n-grams of 1 to ``max_ngram`` tokens of one text, kept up to date as it grows."""

    def __init__(self, max_ngram: int) -> None:
        self.max_ngram = max_ngram
        self.ends: dict[tuple[int, ...], int] = {}
        self.indexed = 0

    def index(self, history: Sequence[int]) -> None:
        """Note where the n-grams of the text end; the last token has no successor yet."""
        for end in range(self.indexed + 1, len(history)):
            for n in range(1, min(self.max_ngram, end) + 1):
                self.ends[tuple(history[end - n : end])] = end
        self.indexed = max(self.indexed, len(history) - 1)

    def match(self, context: Sequence[int]) -> tuple[int, int] | None:
        """Length of the longest n-gram at the context's end that occurred before, and where it last ended."""
        for n in range(min(self.max_ngram, len(context)), 0, -1):
            end = self.ends.get(tuple(context[-n:]))
            if end is not None:
                return n, end
        return None
