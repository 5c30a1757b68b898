"""Candidates for the next token that need no training, each with how often its like was right.

Two sources: what followed the longest n-gram ending here where it occurred before in the text, and the k tokens the
target ranked highest when it last saw the last two tokens, else the last one. How far each is trusted is learnt from
outcomes, by class: the length of the match, the length of the row's context, the level of the token's share there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.kinds.speculative.ngrams import TextNgrams

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.55, 0.75, 0.9, 0.97)
"""Borders of the classes of a candidate's share among the k best."""
HORIZON = 200.0
"""So many outcomes of a class count; older ones fade."""
PRIOR_WEIGHT = 4.0
MOST_ROWS = 200_000
"""About 100 MB of rows; the default model has 49,152 tokens."""
Key = tuple[int, int, int]
"""Class of a candidate: tokens that matched in the text, tokens of context of its row, level of its share there."""
Row = tuple[tuple[int, ...], tuple[int, ...]]
"""The k best tokens after a context, and the levels of their shares."""


class Candidates:
    """Both sources and how far each is to be trusted."""

    def __init__(self, k: int, max_ngram: int) -> None:
        self.k, self.max_ngram = k, max_ngram
        self.rows: dict[tuple[int, ...], Row] = {}
        self.outcomes: dict[Key, tuple[float, float]] = {}

    def begin(self) -> None:
        """Forget the last text; rows and outcomes stay."""
        self.ngrams = TextNgrams(self.max_ngram)

    def after(self, context: tuple[int, ...], history: Sequence[int]) -> dict[int, tuple[float, Key]]:
        """Tokens that may follow ``context``: the chance of each and its class."""
        wide = 2
        row = self.rows.get(context[-2:])
        if row is None:
            wide, row = 1, self.rows.get(context[-1:], ((), ()))
        keys = {token: (0, wide, level) for token, level in zip(*row, strict=True)}
        match = self.ngrams.match(context)
        if match is not None:
            length, end = match
            keys[history[end]] = (length, *keys.get(history[end], (0, 0, 0))[1:])
        return {token: (self.chance(key), key) for token, key in keys.items()}

    def chance(self, key: Key) -> float:
        """Share of right candidates in a class, with a prior from what each source promises."""
        right, tried = self.outcomes.get(key, (0.0, 0.0))
        matched, context, level = key
        promised = (0.0, *LEVELS)[level] * (0.5 + 0.2 * context) if context else 0.0
        prior = max(promised, 1 - 0.75 * 0.75**matched if matched else 0.0)
        return (right + PRIOR_WEIGHT * prior) / (tried + PRIOR_WEIGHT)

    def write(self, before: int, token: int, row: Row) -> None:
        """Keep what the target ranked highest after ``token``, for it alone and for both tokens; the oldest go."""
        for context in ((token,), (before, token)):
            self.rows.pop(context, None)
            self.rows[context] = row
        while len(self.rows) > MOST_ROWS:
            del self.rows[next(iter(self.rows))]

    def learn(self, key: Key, right: bool) -> None:
        """Count one outcome."""
        hits, tried = self.outcomes.get(key, (0.0, 0.0))
        fade = HORIZON / (HORIZON + 1) if tried >= HORIZON else 1.0
        self.outcomes[key] = hits * fade + right, tried * fade + 1


def ranked_rows(logits_NV: Tensor, k: int) -> list[Row]:
    """The k best tokens after each node, with the levels of their shares among the k."""
    best = logits_NV.float().topk(k, dim=-1)
    levels = torch.bucketize(best.values.softmax(-1), torch.tensor(LEVELS, device=best.values.device))
    return [(tuple(t), tuple(s)) for t, s in zip(best.indices.tolist(), levels.tolist(), strict=True)]
