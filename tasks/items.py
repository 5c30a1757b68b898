"""What the item generators share: random numbers of one item, rows of choice tasks, and data sets.

Item ``i`` depends on the task, the seed, the knobs and ``i`` alone, so every machine asks the same, and a shorter run
sees the first items of a longer one. What depends on a tokenizer stands in no row: a row says by ``span`` (first
character and the one after the last) and ``letters`` (characters) where in its context the words lie, and
``harness.evaluate.strata`` looks at the tokens there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]


def item_rng(task: str, seed: int, index: int) -> random.Random:
    """The random numbers of one item. Strings are seeded by SHA-512, so ``PYTHONHASHSEED`` plays no part."""
    return random.Random(f"{task}:test:{seed}:{index}")


def place(rng: random.Random, index: int, count: int) -> int:
    """A place in ``range(count)``: item by item through ten equal bins (fewer where ``count`` is), random inside one.

    The bins are visited in strides, so that the first few items already cover the whole range.
    """
    bins = min(10, count)
    bin_ = (3 if bins % 3 else 1) * index % bins
    return rng.randrange(count * bin_ // bins, count * (bin_ + 1) // bins)


def choice_row(rng: random.Random, context: str, answer: str, others: Sequence[str], **more: Any) -> Row:
    """A row whose options are shuffled."""
    choices = [answer, *others]
    rng.shuffle(choices)
    return {"context": context, "choices": choices, "answer": choices.index(answer), **more}


def number_row(context: str, value: int, most: int, **more: Any) -> Row:
    """A row whose answer is a number, to be chosen out of 0 to ``most`` or written."""
    choices = [f" {k}" for k in range(most + 1)]
    return {"context": context, "choices": choices, "answer": value, "target": str(value), "value": value, **more}


def dataset(task: str, n: int, seed: int, make: Callable[[random.Random, int], Row]) -> dict[str, Any]:
    """The split ``test``: ``n`` rows, each made from random numbers of its own and its number."""
    from datasets import Dataset

    rows = [{"id": f"{task}-{seed}-{i}", **make(item_rng(task, seed, i), i)} for i in range(n)]
    return {"test": Dataset.from_list(rows)}
