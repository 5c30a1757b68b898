"""Words by rule, and the tokenizer of models that read words byte by byte: bytes with an id that ends a word.

A rule says whether a character begins a new word from the word so far alone, so a text that goes on never changes the
words before its last one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache

from harness.subjects.tiny import ByteIds

Rule = Callable[[str, str], bool]
LONGEST = 32
"""Bytes of a word; a longer one is cut."""


def after_blanks(word: str, char: str) -> bool:
    """Blanks belong to the word before them."""
    return word[-1].isspace() and not char.isspace()


@lru_cache(maxsize=65536)
def _kind(char: str) -> str:
    if char.isspace():
        return "blank"
    name, category = unicodedata.name(char, ""), unicodedata.category(char)
    if name.startswith(("CJK UNIFIED", "HIRAGANA")):
        return "sign"
    if name.startswith("KATAKANA"):
        return "katakana"
    return {"P": "punctuation", "S": "sign", "M": "mark"}.get(category[0], "letter")


def _base(word: str) -> str:
    """Kind of the last character that is no combining mark."""
    return next((kind for kind in map(_kind, reversed(word)) if kind != "mark"), "mark")


def by_parts(word: str, char: str) -> bool:
    """One blank joins the word after it, punctuation the one before; breaks in camelCase and after inner punctuation.

    Each newline, each other blank and each run of two blanks or more is a word; so is each symbol, each Han and each
    Hiragana character; runs of Katakana are words.
    """
    last, kind = _kind(word[-1]), _kind(char)
    if kind == "blank":
        run = char == " " and not word.strip(" ")
        return not (run or (word == "\r" and char == "\n"))
    if word == " " or kind == "punctuation":
        return last == "blank" and word != " "
    if kind == "mark":
        return last in ("punctuation", "blank")
    return kind == "sign" or _base(word) != kind or (word[-1].islower() and char.isupper())


RULES: dict[str, Rule] = {"space": after_blanks, "parts": by_parts}


def words(text: str, rule: Rule, longest: int = LONGEST) -> Iterator[str]:
    """The words of a text, none longer than ``longest`` bytes; joined they are the text."""
    held, size = "", 0
    for char in text:
        more = len(char.encode())
        if held and (size + more > longest or rule(held, char)):
            yield held
            held, size = "", 0
        held, size = held + char, size + more
    if held:
        yield held


class WordBytes(ByteIds):
    """Bytes, with id 258 between words. The last word of a text is left open, as the text may go on.

    So the ids of a text begin those of every text that begins with it, and a continuation holds all that has to be
    predicted of it, ends of words included.
    """

    vocab_size = ByteIds.vocab_size + 1
    end_of_word = ByteIds.vocab_size

    def __init__(self, rule: str) -> None:
        self.name = f"word bytes by {rule}"
        self.rule = RULES[rule]

    def encode(self, text: str) -> list[int]:
        """The words' bytes with an end of word between every two."""
        ids: list[int] = []
        for word in words(text, self.rule):
            ids += [self.end_of_word] * bool(ids) + super().encode(word)
        return ids
