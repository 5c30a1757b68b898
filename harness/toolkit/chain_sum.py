"""``chain_sum`` as a task: problems to train on, their rewards, and documents that lm-eval can ask."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.subjects.chain_sum_text import (
    GAP,
    TraceStyle,
    answer_digit,
    draw_operands,
    is_right,
    prompt_text,
    write_trace,
)

Operands = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ChainSum:
    """Sums of ``operands`` digits; ``style`` says how responses are written where none are sampled."""

    operands: int = 4
    held_out: bool = False
    style: TraceStyle = GAP

    def draw(self, rng: random.Random) -> Operands:
        """A problem of this split; the splits share none."""
        return draw_operands(rng, self.operands, self.held_out)

    def prompt(self, problem: Operands) -> str:
        """The problem as text."""
        return prompt_text(problem)

    def reward(self, problem: Operands, response: str) -> float:
        """1 for a well-formed response with the right answer, else 0."""
        return float(is_right(problem, response))

    def written(self, problem: Operands, rng: random.Random) -> str:
        """A response in the style of the warm start's traces, right or wrong."""
        return write_trace(problem, rng, self.style)


def documents(n: int = 200, seed: int = 0, operands: int = 4, **_other: Any) -> dict[str, Any]:
    """The test split for lm-eval: ``n`` different held-out problems with ``question`` and ``answer``.

    lm-eval hands a task's whole metadata over; what is not named here is not ours. Raises :class:`UsageError` where
    there are too few problems of so many operands.
    """
    from datasets import Dataset

    if n > 10**operands // 8:
        raise UsageError(f"there are too few held-out sums of {operands} digits for n={n}; lower n or raise operands")

    rng = random.Random(seed)
    task = ChainSum(operands=operands, held_out=True)
    problems: dict[Operands, None] = {}
    while len(problems) < n:
        problems[task.draw(rng)] = None
    rows = [{"question": task.prompt(p), "answer": str(answer_digit(p))} for p in problems]
    return {"test": Dataset.from_list(rows)}
