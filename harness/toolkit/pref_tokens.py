"""``pref_tokens``: free strings whose every symbol has a hidden score, so that rewards by token have a truth.

A response is any string over twelve symbols and its reward the sum of their scores. Judges prefer one of two
responses by that sum, with the noise of Bradley and Terry; see :mod:`harness.kinds.objective.preferences`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from harness.subjects.toy_text import is_held_out

SYMBOLS = "0123456789+;"
"""Characters that every tokenizer of the zoo reads."""

HIDDEN_SEED = "pref_tokens"


def hidden_scores() -> dict[str, float]:
    """The score of each symbol: evenly spread from -1 to 1, in a random order that is the same everywhere."""
    order = random.Random(HIDDEN_SEED).sample(SYMBOLS, len(SYMBOLS))
    return {symbol: 2 * place / (len(SYMBOLS) - 1) - 1 for place, symbol in enumerate(order)}


@dataclass(frozen=True, kw_only=True)
class PrefText:
    """Strings of up to ``longest`` symbols after a prompt of two digits, which mean nothing."""

    longest: int = 12

    def draw(self, rng: random.Random, held_out: bool) -> str:
        """Two digits of one split."""
        while True:
            problem = "".join(rng.choices(SYMBOLS[:10], k=2))
            if is_held_out(self.prompt(problem)) == held_out:
                return problem

    def prompt(self, problem: str) -> str:
        """The digits and an equals sign."""
        return f"{problem}="

    def grade(self, problem: str, response: str) -> float:
        """The sum of the symbols' scores; characters that are no symbol cost 1 each."""
        scores = hidden_scores()
        return sum(scores.get(symbol, -1.0) for symbol in response)

    def write(self, problem: str, rng: random.Random) -> str:
        """A random string of 1 to ``longest`` symbols."""
        return "".join(rng.choices(SYMBOLS, k=rng.randint(1, self.longest)))
