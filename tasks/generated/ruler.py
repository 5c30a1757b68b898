"""Long-context tasks in the form of RULER, with closed answers of several tokens: needles, chains, common words.

Each text has a visible and a hidden form. Visible: the question ends the context, so a method that prunes a cache at
the prompt's end has seen it. ``hidden``: the question begins the continuation, the same in all options. Length is set
by ``sentences`` (or ``words``); the YAMLs say how many tokens of the default model that makes. Rows and seeds are those
of :mod:`tasks.items`.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tasks.items import Row, choice_row, dataset, place
from tasks.words import COMMON, FILLERS


def asked(rng: random.Random, text: str, question: str, hidden: bool, options: Sequence[str], **more: Any) -> Row:
    """A row about a text; the first option is the answer."""
    context, lead = (text, f"\n{question}") if hidden else (f"{text}\n{question}", "")
    answer, *others = [f"{lead} {option}" for option in options]
    return choice_row(rng, context, answer, others, **more)


def haystack(rng: random.Random, sentences: int, facts: Sequence[str], first: int) -> str:
    """Neutral sentences; the first fact stands before sentence ``first``, the others at random places."""
    text = [rng.choice(FILLERS) for _ in range(sentences)]
    gaps = [first, *(rng.randrange(sentences) for _ in facts[1:])]
    # Later gaps are filled first, so that earlier ones keep their numbers.
    for gap, fact in sorted(zip(gaps, facts, strict=True), key=lambda pair: pair[0], reverse=True):
        text.insert(gap, fact)
    return " ".join(text)


def number(rng: random.Random, digits: int) -> str:
    """A number of so many digits."""
    return str(rng.randrange(10 ** (digits - 1), 10**digits))


def near_misses(rng: random.Random, right: str, count: int, slips: int) -> list[str]:
    """Different numbers of the same length with ``slips`` other digits; the first digit stays."""
    found: set[str] = set()
    while len(found) < count:
        digits = list(right)
        for at in rng.sample(range(1, len(digits)), slips):
            digits[at] = rng.choice([d for d in string.digits if d != digits[at]])
        found.add("".join(digits))
    return sorted(found)


def needle(n: int, seed: int, sentences: int, digits: int = 7, slips: int = 2, hidden: bool = False, **_: Any) -> Any:
    """One magic number in unrelated sentences, asked for among numbers that differ from it in ``slips`` digits."""

    def make(rng: random.Random, index: int) -> Row:
        key, right = rng.choice(COMMON), number(rng, digits)
        at = place(rng, index, sentences)
        text = haystack(rng, sentences, [f"The special magic number for {key} is {right}."], at)
        question = f"What is the special magic number for {key}? The special magic number for {key} is"
        return asked(rng, text, question, hidden, [right, *near_misses(rng, right, 9, slips)], depth=at / sentences)

    return dataset("needle", n, seed, make)


def multikey(n: int, seed: int, sentences: int, keys: int = 10, digits: int = 7, hidden: bool = False, **_: Any) -> Any:
    """``keys`` magic numbers of as many words, one asked for; the options are the numbers of the text."""

    def make(rng: random.Random, index: int) -> Row:
        names = rng.sample(COMMON, keys)
        numbers = [number(rng, digits) for _ in names]
        at = place(rng, index, sentences)
        facts = [f"The special magic number for {k} is {v}." for k, v in zip(names, numbers, strict=True)]
        question = f"What is the special magic number for {names[0]}? The special magic number for {names[0]} is"
        return asked(rng, haystack(rng, sentences, facts, at), question, hidden, numbers, depth=at / sentences)

    return dataset("multikey", n, seed, make)


def tracking(n: int, seed: int, sentences: int, chains: int = 4, hops: int = 2, hidden: bool = False, **_: Any) -> Any:
    """Chains of links lie mixed in a text, in order; options leave the asked chain for another at each of its links.

    RULER writes ``VAR b = VAR a``; here a link reads ``a -> b``, as the default model cannot read one backwards. One
    more chain is followed as an example.
    """

    def make(rng: random.Random, _: int) -> Row:
        names = rng.sample(COMMON, (chains + 1) * (hops + 1))
        lists = [names[c :: chains + 1] for c in range(chains + 1)]
        starts = [str(s) for s in rng.sample(range(10_000, 100_000), chains + 1)]
        links: dict[int, list[str]] = {}
        for start, chain in zip(starts, lists, strict=True):
            gaps = sorted(rng.randrange(sentences) for _ in chain)
            for gap, (one, next_) in zip(gaps, pairwise([start, *chain]), strict=True):
                links.setdefault(gap, []).append(f"{one} -> {next_}.")
        text = " ".join(" ".join([*links.get(i, []), rng.choice(FILLERS)]) for i in range(sentences))
        right, *others, shown = lists
        example = f"\nFollow the arrows: {starts[-1]} -> {' -> '.join(shown)}."
        paths = [right, *(right[:at] + other[at:] for at in range(hops + 1) for other in others)]
        question = f"Follow the arrows: {starts[0]} ->"
        return asked(rng, text + example, question, hidden, [" -> ".join(path) for path in paths])

    return dataset("tracking", n, seed, make)


def common(
    n: int,
    seed: int,
    words: int,
    often: int = 6,
    seldom: int = 2,
    named: int = 3,
    options: int = 8,
    hidden: bool = False,
    **_: Any,
) -> Any:
    """A list in which ``named`` words stand ``often`` times and all others ``seldom`` times: which are common?"""

    def make(rng: random.Random, _: int) -> Row:
        rare = (words - named * often) // seldom
        pool = rng.sample(COMMON, named + rare)
        listed = pool[:named] * often + pool[named:] * seldom
        rng.shuffle(listed)
        text = " ".join(f"{i}. {w}" for i, w in enumerate(listed, 1))
        sets = [pool[:named]]
        sets += [rng.sample(pool[named:], named) for _ in range(options - 1)]
        question = "The most common words in the list above are"
        return asked(rng, text, question, hidden, [", ".join(s) for s in sets])

    return dataset("common", n, seed, make)
