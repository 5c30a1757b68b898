"""The language of ``chain_sum``: digits are added one by one, modulo ten, and the answer stands after ``#``.

A prompt is ``3+8+5+9=``. A response is a trace of running sums and the answer, ``3;1;6;5#5``, and is right when it
parses and its answer is right. Written traces err at a known rate and repeat their last step, at the risk of a new
error, so that lengths vary and wrong responses are longer than right ones.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.subjects.toy_text import is_held_out

ALPHABET = "0123456789+=;#"
RESPONSE = re.compile(r"[0-9;]*#([0-9])")


class CharIds:
    """One id a character; two more begin and end a text."""

    name = "chain-sum-characters"
    prefix_id = len(ALPHABET)
    eos_ids = (len(ALPHABET) + 1,)
    vocab_size = len(ALPHABET) + 2

    def encode(self, text: str) -> list[int]:
        """One id a character; :class:`UsageError` names a character outside the alphabet."""
        unknown = [c for c in text if c not in ALPHABET]
        if unknown:
            raise UsageError(f"this model reads only the characters {ALPHABET} (got {unknown[0]!r}); ask it chain_sum")
        return [ALPHABET.index(c) for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        """The characters, special ids left out."""
        return "".join(ALPHABET[i] for i in ids if i < len(ALPHABET))

    def token_bytes(self, token_id: int) -> bytes | None:
        """One byte, None for the special ids."""
        return ALPHABET[token_id].encode() if token_id < len(ALPHABET) else None


@dataclass(frozen=True)
class TraceStyle:
    """How careless written traces are.

    ``wrong`` is the probability that a running sum is wrong (and carried on). After the last sum the writer checks it
    again with probability ``recheck``, and so on up to ``most_rechecks`` times, and each check turns the value into a
    wrong one with probability ``slip``: so ``slip`` makes wrong responses longer than right ones.
    """

    wrong: float = 0.08
    recheck: float = 0.6
    slip: float = 0.25
    most_rechecks: int = 8


GAP, NO_GAP = TraceStyle(), TraceStyle(wrong=0.17, slip=0.0)


def answer_digit(operands: Sequence[int]) -> int:
    """The sum modulo ten."""
    return sum(operands) % 10


@dataclass(frozen=True, kw_only=True)
class ChainSumText:
    """Sums of ``operands`` digits, or of ``operands`` to ``most`` where that is more.

    Prompts of mixed sums begin with as many zeros as make them all of one length, and so do their traces: a tiny model
    learns where to look by distance, and reads fewer digits no less well.
    """

    operands: int = 4
    most: int = 0
    style: TraceStyle = GAP

    def draw(self, rng: random.Random, held_out: bool) -> tuple[int, ...]:
        """Random digits of one split."""
        while True:
            count = rng.randint(self.operands, self.most) if self.most > self.operands else self.operands
            operands = tuple(rng.randrange(10) for _ in range(count))
            if is_held_out(self.prompt(operands)) == held_out:
                return operands

    def prompt(self, problem: Sequence[int]) -> str:
        """``3+8+5+9=``, of mixed sums ``0+0+3+8=``."""
        return "+".join(map(str, self._padded(problem))) + "="

    def grade(self, problem: Sequence[int], response: str) -> float:
        """1 for a well-formed trace, which may be empty, with the right answer; else 0."""
        match = RESPONSE.fullmatch(response)
        return float(match is not None and int(match[1]) == answer_digit(problem))

    def write(self, problem: Sequence[int], rng: random.Random) -> str:
        """A response as the warm start shows it: running sums with errors, checks of the last one, then the answer."""
        style, total = self.style, 0
        steps = [0] * (len(self._padded(problem)) - len(problem))
        for operand in problem:
            total = (total + operand) % 10
            if rng.random() < style.wrong:
                total = (total + rng.randrange(1, 10)) % 10
            steps.append(total)
        checks = 0
        while checks < style.most_rechecks and rng.random() < style.recheck:
            if rng.random() < style.slip:
                total = (total + rng.randrange(1, 10)) % 10
            steps.append(total)
            checks += 1
        return ";".join(map(str, steps)) + f"#{total}"

    def _padded(self, problem: Sequence[int]) -> list[int]:
        return [0] * (self.most - len(problem)) + list(problem)
