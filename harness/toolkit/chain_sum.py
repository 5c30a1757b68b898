"""The documents of ``chain_sum`` that lm-eval can ask."""

from __future__ import annotations

import random
from typing import Any

from harness.errors import UsageError
from harness.subjects.chain_sum_text import ChainSumText, answer_digit


def documents(n: int = 200, seed: int = 0, operands: int = 4, **_other: Any) -> dict[str, Any]:
    """The test split for lm-eval: ``n`` different held-out problems with ``question`` and ``answer``.

    lm-eval hands a task's whole metadata over; what is not named here is not ours. Raises :class:`UsageError` where
    there are too few problems of so many operands.
    """
    from datasets import Dataset

    if n > 10**operands // 8:
        raise UsageError(f"there are too few held-out sums of {operands} digits for n={n}; lower n or raise operands")

    rng, text = random.Random(seed), ChainSumText(operands=operands)
    problems: dict[tuple[int, ...], None] = {}
    while len(problems) < n:
        problems[text.draw(rng, held_out=True)] = None
    rows = [{"question": text.prompt(p), "answer": str(answer_digit(p))} for p in problems]
    return {"test": Dataset.from_list(rows)}
