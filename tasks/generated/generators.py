"""Generators of the zoo's own tasks: seeded, free of any tokenizer, the same in every process.

Each public function is the ``custom_dataset`` of a YAML: lm-eval passes the YAML's metadata (``n``, ``seed`` and the
knobs) and gets the split ``test``. Item ``i`` depends on the task, the seed, the knobs and ``i`` alone, so a shorter
run sees the first items of a longer one.

A row of a choice task has ``context``, ``choices`` (complete continuations, leading space included) and ``answer``
(index). Where a fact lies at a place in the context, the places are spread evenly over the items and ``depth`` is the
relative place in [0, 1).
"""

from __future__ import annotations

import math
import random
from typing import Any

from tasks.items import Row, choice_row, dataset, item_rng, place
from tasks.words import ATTRACTORS, CLASSES, COLORS, COMMON, FILLERS, HEADS, NAMES

SLIPS = (-11, -10, -9, -3, -2, -1, 1, 2, 3, 9, 10, 11)
"""How far the wrong sums of the addition task lie from the right one."""


def induct(n: int, seed: int, words: int, **_: Any) -> dict[str, Any]:
    """A list of distinct words is begun a second time; choose the next word among all of them."""

    def make(rng: random.Random, index: int) -> Row:
        listed = rng.sample(COMMON, words)
        at = 1 + place(rng, index, words - 1)
        others = [f" {w}" for w in listed if w != listed[at]]
        context = f"{' '.join(listed)}\n{' '.join(listed[:at])}"
        return choice_row(rng, context, f" {listed[at]}", others, depth=at / words)

    return dataset(f"induct{words}", n, seed, make)


def kvc(n: int, seed: int, pairs: int, shots: int = 2, hidden: bool = False, **_: Any) -> dict[str, Any]:
    """A table of ``key: color`` lines, some of them repeated below it, then a key: which color?

    ``hidden``: the key is part of the continuation, so a cache is pruned before it is seen.
    """

    def make(rng: random.Random, index: int) -> Row:
        keys = rng.sample(COMMON, pairs)
        values = [rng.choice(COLORS) for _ in keys]
        at = place(rng, index, pairs)
        if len(set(values)) == 1:  # one option would be no question
            values[at] = rng.choice([c for c in COLORS if c != values[at]])
        lines = [f"{k}: {v}" for k, v in zip(keys, values, strict=True)]
        shown = rng.sample([line for i, line in enumerate(lines) if i != at], shots)
        context, question = "\n".join([*lines, "", *shown]), f"\n{keys[at]}:"
        if not hidden:
            context, question = context + question, ""
        others = [f"{question} {c}" for c in sorted(set(values) - {values[at]})]
        return choice_row(rng, context, f"{question} {values[at]}", others, depth=at / pairs)

    return dataset(f"kvc{pairs}", n, seed, make)


def category(n: int, seed: int, shots: int = 2, **_: Any) -> dict[str, Any]:
    """``word -> class`` after a few examples of other words; four classes, asked in turn."""
    names = list(CLASSES)

    def make(rng: random.Random, index: int) -> Row:
        wanted = names[index % len(names)]
        word = rng.choice(CLASSES[wanted])
        pool = [(w, c) for c in names for w in CLASSES[c] if w != word]
        shown = rng.sample(pool, shots)
        context = "\n".join([*(f"{w} -> {c}" for w, c in shown), f"{word} ->"])
        return choice_row(rng, context, f" {wanted}", [f" {c}" for c in names if c != wanted])

    return dataset(f"category{shots}", n, seed, make)


def agree(n: int, seed: int, attractors: int, **_: Any) -> dict[str, Any]:
    """Subject and verb, nouns of the other number between them. Items 2j and 2j + 1 are twins: singular and plural."""
    task = f"agree{attractors}"

    def make(_: random.Random, index: int) -> Row:
        pair, plural = divmod(index, 2)
        rng = item_rng(task, seed, pair)
        head = rng.choice(HEADS)
        between = rng.sample([w for w in ATTRACTORS if w != head], attractors)
        context = f"The {head}{'s' * plural}" + "".join(f" near the {w}{'s' * (1 - plural)}" for w in between)
        return {"context": context, "choices": [" is", " are"], "answer": plural, "pair": pair}

    return dataset(task, n, seed, make)


def add(n: int, seed: int, below: int, shots: int = 3, **_: Any) -> dict[str, Any]:
    """``a + b = c`` with operands under ``below`` after other sums; wrong options are near misses."""

    def make(rng: random.Random, _: int) -> Row:
        sums = rng.sample(range(below * below), shots + 1)
        *shown, (a, b) = [divmod(s, below) for s in sums]
        wrong = sorted({max(0, a + b + slip) for slip in SLIPS} - {a + b})
        context = "\n".join([*(f"{x} + {y} = {x + y}" for x, y in shown), f"{a} + {b} ="])
        return choice_row(rng, context, f" {a + b}", [f" {w}" for w in rng.sample(wrong, 3)])

    return dataset(f"add{below}", n, seed, make)


def count(n: int, seed: int, most: int = 4, **_: Any) -> dict[str, Any]:
    """How often does a word stand in a line? This model cannot tell: a negative control."""

    def make(rng: random.Random, index: int) -> Row:
        times = 1 + index % most
        asked, *rest = rng.sample(COMMON, 5)
        line = [asked] * times + rest[: most + 1 - times]
        rng.shuffle(line)
        context = f"{' '.join(line)}\nThe number of times the word {asked} appears above is"
        return choice_row(rng, context, f" {times}", [f" {k}" for k in range(1, most + 1) if k != times])

    return dataset("count", n, seed, make)


def passkey(n: int, seed: int, sentences: int, hidden: bool = False, **_: Any) -> dict[str, Any]:
    """Ten people's pass keys lie in unrelated sentences; one is asked for, the other nine keys are the wrong options.

    ``hidden``: the question belongs to the continuation, so that a cache is pruned before the question is seen. It is
    the same in all options, so comparing them compares the keys.
    """

    def make(rng: random.Random, index: int) -> Row:
        names = rng.sample(NAMES, 10)
        keys = [str(k) for k in rng.sample(range(10_000, 100_000), 10)]
        text = [rng.choice(FILLERS) for _ in range(sentences)]
        at = place(rng, index, sentences)
        # Gaps between sentences are numbered by the sentence that follows; later gaps are filled first.
        gaps = {0: at} | {k: rng.randrange(sentences) for k in range(1, 10)}
        for k in sorted(gaps, key=lambda k: gaps[k], reverse=True):
            text.insert(gaps[k], f"The pass key of {names[k]} is {keys[k]}.")
        story, question = " ".join(text), f"\nWhat is the pass key of {names[0]}? The pass key of {names[0]} is"
        context, lead = (story, question) if hidden else (story + question, "")
        return choice_row(rng, context, f"{lead} {keys[0]}", [f"{lead} {k}" for k in keys[1:]], depth=at / sentences)

    return dataset("passkey", n, seed, make)


def copy_gen(n: int, seed: int, words: int, copies: int = 2, **_: Any) -> dict[str, Any]:
    """A line of words stands ``copies`` times and is begun once more by its first word; ``target`` is the rest.

    One copy is not enough for a small base model to take up the pattern by itself.
    """

    def make(rng: random.Random, _: int) -> Row:
        listed = rng.sample(COMMON, words)
        context = "\n".join([*[" ".join(listed)] * copies, listed[0]])
        return {"context": context, "target": " ".join(listed[1:])}

    return dataset(f"copy{words}", n, seed, make)


def nll_text(n: int, seed: int, **_: Any) -> dict[str, Any]:
    """Passages of English prose, cut at the word nearest to the middle; the second half is scored after the first."""
    import json
    from importlib.resources import files

    lines = files("tasks").joinpath("data/passages.jsonl").read_text(encoding="utf-8").splitlines()
    order = random.Random(f"nll_text:test:{seed}").sample(range(len(lines)), min(n, len(lines)))

    def make(_: random.Random, index: int) -> Row:
        words = json.loads(lines[order[index]])["text"].split(" ")
        half = math.ceil(len(words) / 2)
        return {"context": " ".join(words[:half]), "target": " " + " ".join(words[half:])}

    return dataset("nll_text", len(order), seed, make)
