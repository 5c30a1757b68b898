"""Small languages whose problems a program writes, answers and grades."""

from __future__ import annotations

import hashlib
import random
from typing import Any, Protocol

HELD_OUT_PART = 4
"""One prompt in so many is held out for evaluation, by its hash."""


class ToyText(Protocol):
    """A language. Its fields decide all that it says, so they stand in a model's recipe."""

    def draw(self, rng: random.Random, held_out: bool) -> Any:
        """A random problem of one split; the splits share none."""

    def prompt(self, problem: Any) -> str:
        """The problem as text."""

    def write(self, problem: Any, rng: random.Random) -> str:
        """A careless response, right or wrong."""

    def grade(self, problem: Any, response: str) -> float:
        """1 for a right response, less for others."""


def is_held_out(prompt: str) -> bool:
    """Whether a prompt belongs to the test split; it is then never trained on."""
    return hashlib.sha256(b"chain_sum" + prompt.encode()).digest()[0] % HELD_OUT_PART == 0
