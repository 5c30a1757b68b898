"""The language of ``multi_select``: which of these digits are greater than the first?

A prompt is ``5+4;7;9;2=`` and its right response ``7;9``, in any order. With ``soft`` grades a part of the right digits
earns a part of the grade, and one wrong digit nothing. With inversion a question that has one right digit alone is
asked the other way round, ``5#4;7;2;1=`` with the right response ``4;2;1``: which are *not* greater?
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from harness.subjects.toy_text import is_held_out

Choice = tuple[int, tuple[int, ...]]
"""A bound, and the different digits to choose from."""


def soft_grade(chosen: frozenset[int], right: frozenset[int]) -> float:
    """The part of the right ones that was chosen; 0 where a wrong one was, or none."""
    return len(chosen) / len(right) if chosen and chosen <= right else 0.0


@dataclass(frozen=True, kw_only=True)
class MultiSelectText:
    """``digits`` to choose from; a written response wrongly leaves out or puts in each with probability ``slip``."""

    digits: int = 5
    slip: float = 0.12
    soft: bool = False

    def draw(self, rng: random.Random, held_out: bool) -> Choice:
        """A problem with at least one right digit."""
        while True:
            problem = rng.randrange(9), tuple(rng.sample(range(10), self.digits))
            if self.right(problem) and is_held_out(self.prompt(problem)) == held_out:
                return problem

    def right(self, problem: Choice) -> frozenset[int]:
        """The digits that belong to the answer."""
        return frozenset(digit for digit in problem[1] if digit > problem[0])

    def prompt(self, problem: Choice) -> str:
        """``5+4;7;9;2=``."""
        return f"{problem[0]}+" + ";".join(map(str, problem[1])) + "="

    def grade(self, problem: Choice, response: str) -> float:
        """1 for the right digits, each named once; with ``soft`` less for some of them."""
        if not re.fullmatch(r"[0-9](;[0-9])*", response):
            return 0.0
        named = [int(digit) for digit in response.split(";")]
        chosen, right = frozenset(named), self.right(problem)
        if len(named) > len(chosen):
            return 0.0
        return soft_grade(chosen, right) if self.soft else float(chosen == right)

    def write(self, problem: Choice, rng: random.Random) -> str:
        """The right digits in the problem's order, with slips; at least one digit."""
        right = self.right(problem)
        named = [digit for digit in problem[1] if (digit in right) != (rng.random() < self.slip)]
        return ";".join(map(str, named or problem[1][:1]))


@dataclass(frozen=True, kw_only=True)
class InvertedSelectText(MultiSelectText):
    """Every question has several right digits: those with one are negated, and the other digits are right instead."""

    def negated(self, problem: Choice) -> bool:
        """Whether the plain question has one right digit alone."""
        return len(super().right(problem)) == 1

    def right(self, problem: Choice) -> frozenset[int]:
        """The digits that belong to the answer of the question as it is asked."""
        plain = super().right(problem)
        return frozenset(problem[1]) - plain if self.negated(problem) else plain

    def prompt(self, problem: Choice) -> str:
        """``5+4;7;9;2=``, negated ``5#4;7;2;1=``."""
        plain = super().prompt(problem)
        return plain.replace("+", "#") if self.negated(problem) else plain
