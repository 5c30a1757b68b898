"""``pref_tokens``: free strings whose every symbol has a hidden score, so that rewards by token have a truth.

A response is any string over twelve symbols and its reward the sum of their scores. Judges prefer one of two
responses by that sum, with the noise of Bradley and Terry; see :mod:`harness.kinds.objective.preferences`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

SYMBOLS = "0123456789+;"
"""Characters that every tokenizer of the zoo reads."""

HIDDEN_SEED = "pref_tokens"


def hidden_scores() -> dict[str, float]:
    """The score of each symbol: evenly spread from -1 to 1, in a random order that is the same everywhere."""
    order = random.Random(HIDDEN_SEED).sample(SYMBOLS, len(SYMBOLS))
    return {symbol: 2 * place / (len(SYMBOLS) - 1) - 1 for place, symbol in enumerate(order)}


@dataclass(frozen=True, kw_only=True)
class PrefTokens:
    """Strings of up to ``longest`` symbols after a prompt of one digit, which means nothing."""

    longest: int = 12

    def draw(self, rng: random.Random) -> str:
        """A digit."""
        return rng.choice(SYMBOLS[:10])

    def prompt(self, problem: str) -> str:
        """The digit and an equals sign."""
        return f"{problem}="

    def reward(self, problem: str, response: str) -> float:
        """The sum of the symbols' scores; characters that are no symbol cost 1 each."""
        scores = hidden_scores()
        return sum(scores.get(symbol, -1.0) for symbol in response)

    def written(self, problem: str, rng: random.Random) -> str:
        """A random string of 1 to ``longest`` symbols."""
        return "".join(rng.choices(SYMBOLS, k=rng.randint(1, self.longest)))
