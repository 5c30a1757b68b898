"""Next-word accuracy: a fixed context in characters, greedy text, right only where the whole word and its end match."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from harness.kinds.method import Measurement
from harness.subjects.requests import GenerateRequest
from harness.subjects.subject import Subject
from harness.toolkit.corpora import documents

CONTEXT = 150
"""Characters before the word; a document gives one word, the last that is followed by another."""
ITEMS, BATCH = 120, 8
BANDS = (("frequent", 46, None), ("middle", 10, 46), ("rare", 0, 10))
"""Occurrences of a word in the training text: above 45, 10 to 45, below 10."""


@dataclass(frozen=True)
class Item:
    """A context without the blank at its end, and the blank with the word after it."""

    context: str
    answer: str


def items(texts: list[str]) -> Iterator[Item]:
    """The last full word of each text that is long enough."""
    for text in texts:
        found = re.search(r" \S+(?= \S+\s*\Z)", text)
        if found and found.start() >= CONTEXT:
            yield Item(text[found.start() - CONTEXT : found.start()], found.group())


@dataclass
class NextWord:
    """Greedy decoding for every subject. Words are counted in the text that training could read."""

    corpus: str
    train_bytes: int
    name: str = "next_word"

    def measure(self, subject: Subject) -> list[Measurement]:
        """``next_word_acc`` of all words, and of each band that has any."""
        counts = Counter(word for text in documents(self.corpus, "train", self.train_bytes) for word in text.split())
        asked = list(items(documents(self.corpus, "test")))[:ITEMS]
        right: list[bool] = []
        for start in range(0, len(asked), BATCH):
            right += self._judged(subject, asked[start : start + BATCH])
        found = [Measurement("next_word_acc", sum(right) / len(right), n=len(right))] if right else []
        for band, least, limit in BANDS:
            own = [
                hit
                for item, hit in zip(asked, right, strict=True)
                if counts[item.answer.strip()] >= least and (limit is None or counts[item.answer.strip()] < limit)
            ]
            if own:
                found.append(Measurement("next_word_acc", sum(own) / len(own), n=len(own), phase=band))
        return found

    @staticmethod
    def _judged(subject: Subject, asked: list[Item]) -> list[bool]:
        tokenizer = subject.text_tokenizer()
        # An end of a word may be a token of its own, and the blank after the word has to be written, too.
        longest = 2 * max(len(item.answer.encode()) for item in asked) + 2
        prompts = [[tokenizer.prefix_id, *tokenizer.encode(item.context)] for item in asked]
        rows = subject.generate(GenerateRequest(prompts=prompts, max_new_tokens=longest, ignore_eos=True))
        return [row.text.startswith(item.answer + " ") for row, item in zip(rows, asked, strict=True)]
