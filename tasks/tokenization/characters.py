"""CharBench (arXiv:2508.02591): questions about the letters of a word, in words of this project's lists and texts.

Words of 4 to 10 ASCII letters, case kept, are sorted, shuffled by the seed and dealt to four tasks and to the examples,
so that no two of them share a word. Items go through the lengths in turn: every length is asked alike. The released
benchmark takes its words in an order that depends on the process; sorting first mends that.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from tasks.items import Row, dataset, number_row
from tasks.words import CLASSES, COMMON, FILLERS, NAMES

LENGTHS = range(4, 11)
PREAMBLE = "Upper and lower case are different letters. Answer with the number alone."
QUESTIONS = {
    "unique": 'How many different letters does the word "{word}" have?',
    "frequency": 'How many times does the letter "{letter}" stand in the word "{word}"?',
    "first": 'At which index does the letter "{letter}" stand first in the word "{word}"? Indices begin at 0.',
    "last": 'At which index does the letter "{letter}" stand last in the word "{word}"? Indices begin at 0.',
}
HANDS = (*QUESTIONS, "examples")
"""To whom words are dealt."""


@lru_cache(maxsize=4)
def word_counts(path: str = "") -> Counter[str]:
    """Words of a text file, or of our lists and passages, with how often each stands there."""
    if path:
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"words={path!r} cannot be read: {error}") from error
    else:
        lines = files("tasks").joinpath("data/passages.jsonl").read_text(encoding="utf-8").splitlines()
        lists = (*COMMON, *NAMES, *FILLERS, *(w for members in CLASSES.values() for w in members))
        text = " ".join([*lists, *(json.loads(line)["text"] for line in lines)])
    return Counter(w for w in re.findall(r"\b[A-Za-z]+\b", text) if len(w) in LENGTHS)


def dealt(hand: str, seed: int, path: str = "") -> dict[int, list[str]]:
    """One hand's words by their length, in seeded order."""
    found = {}
    for length in LENGTHS:
        bucket = sorted(w for w in word_counts(path) if len(w) == length)
        random.Random(f"charbench:{seed}:{length}").shuffle(bucket)
        found[length] = bucket[HANDS.index(hand) :: len(HANDS)]
    return found


def answer(question: str, word: str, letter: str) -> int:
    """The number asked for."""
    if question == "unique":
        return len(set(word))
    return {"frequency": word.count, "first": word.index, "last": word.rindex}[question](letter)


def charbench(question: str, n: int, seed: int, shots: int = 0, words: str = "", **_: Any) -> dict[str, Any]:
    """Items of one question. ``words``: a text file to take the words from; ``shots``: solved examples before."""
    mine, shown = dealt(question, seed, words), dealt("examples", seed, words)
    room = len(LENGTHS) * min(map(len, mine.values()))
    if n > room:
        raise UsageError(f"the words give {room} items of charbench_{question}, not n={n}; name a text file in words")

    def asked(word: str, rng: random.Random) -> tuple[str, str]:
        letter = rng.choice(word)  # by position, so frequent letters are asked more often
        return letter, f"Question: {QUESTIONS[question].format(word=word, letter=letter)}\nAnswer:"

    def make(rng: random.Random, index: int) -> Row:
        turn, place = divmod(index, len(LENGTHS))
        word = mine[LENGTHS[place]][turn]
        blocks = [PREAMBLE]
        for example in rng.sample([w for bucket in shown.values() for w in bucket], shots):
            letter, text = asked(example, rng)
            blocks.append(f"{text} {answer(question, example, letter)}")
        letter, text = asked(word, rng)
        context = "\n\n".join([*blocks, text])
        value, start = answer(question, word, letter), context.rindex(f'"{word}"') + 1
        found = number_row(context, value, LENGTHS[-1], length=len(word), unique=len(set(word)))
        found |= {"value_per_length": value / len(word), "frequency": word_counts(words)[word]}
        found["span"] = [start, start + len(word)]
        return found | ({"letters": [start + value]} if question in ("first", "last") else {})

    return dataset(f"charbench_{question}", n, seed, make)
