"""The probe ``token_consistency``: a model rewrites a sentence, and the ids of one marked word are looked at.

The output is forced up to the marked word, which is then sampled many times: what is asked is the model's choice of
tokens at one place, so small models can be asked too. The words that are marked are never the first of a sentence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import Refused
from harness.kinds.method import Measurement
from harness.kinds.tokenizer.intrinsics import ratio
from harness.kinds.tokenizer.phantom import CLASSES, OUTCOMES, Span, artefact, first_word, outcome, word_of
from harness.stats.rates import draw_weights
from harness.subjects.requests import GenerateRequest
from harness.subjects.subject import Subject
from harness.subjects.tokenizer import Tokenizer
from harness.toolkit.corpora import documents

INSTRUCTION = "Rewrite the sentence with another word in the place of the word in brackets.\nSentence: "
ANSWER = "\nRewritten: "
ROOM = 8
"""Tokens that may be written beyond as many as the source word has."""
SENTENCE = re.compile(r"[A-Z][^.!?\[\]]{30,200}\.")
MARKED = re.compile(r"(?<= )[A-Za-z]{5,}(?= )")

Mask = Callable[[Tokenizer, Sequence[int], int], Any]
"""A logits processor for a tokenizer, the ids of the word in the source, and the length of the prompt."""


@dataclass(frozen=True)
class Item:
    """A prompt that ends before the marked word, and the word's tokens in the source text (brackets left out)."""

    prompt: list[int]
    source_ids: list[int]
    source: Span

    @property
    def room(self) -> int:
        """Tokens that are sampled."""
        return ROOM + len(self.source)


@dataclass
class Tally:
    """Outcomes of one item's samples, and of its phantom edits the classes and numbers of tokens."""

    outcomes: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    one_to_one: int = 0


def sentences(corpus: str, count: int) -> list[tuple[str, str, str]]:
    """Sentences of a corpus's test split, each parted around one word in its middle."""
    found = []
    for text in documents(corpus, "test"):
        for sentence in SENTENCE.findall(text):
            words = list(MARKED.finditer(sentence))
            if words:
                start, end = words[len(words) // 2].span()
                found.append((sentence[:start], sentence[start:end], sentence[end:]))
        if len(found) >= count:
            break
    return found[:count]


def items(tokenizer: Tokenizer, parted: Sequence[tuple[str, str, str]]) -> Iterator[Item]:
    """Items of those sentences whose word has tokens of its own, blanks before it included."""
    for before, word, after in parted:
        plain = INSTRUCTION + before + word + after
        end = len((INSTRUCTION + before + word).encode())
        start, at, span = len((INSTRUCTION + before.rstrip()).encode()), 0, []
        for token in tokenizer.encode(plain):
            size = len(tokenizer.token_bytes(token) or b"")
            if at < end and at + size > start:
                span.append(token)
            at += size
        source = [tokenizer.token_bytes(token) or b"" for token in span]
        if word_of(source) == word.encode():
            prompt = f"{INSTRUCTION}{before}[{word}]{after}{ANSWER}{before.rstrip()}"
            yield Item([tokenizer.prefix_id, *tokenizer.encode(prompt)], span, source)


def tally(tokenizer: Tokenizer, item: Item, samples: Sequence[Sequence[int]]) -> Tally:
    """What became of the word in samples of output ids."""
    found = Tally()
    for ids in samples:
        span = first_word([tokenizer.token_bytes(i) or b"" for i in ids])
        ended = outcome(item.source_ids, ids[: len(span or ())], item.source, span)
        found.outcomes[ended] += 1
        if ended == "phantom" and span is not None:
            found.classes[artefact(item.source, span)] += 1
            found.one_to_one += len(item.source) == len(span) == 1
    return found


@dataclass
class TokenConsistency:
    """Rates of outcomes without and with a mask (phases ``plain`` and ``masked``), and the classes of phantom edits."""

    mask: Mask
    sentences: int
    samples: int
    temperature: float
    top_p: float
    top_k: int
    corpus: str = "python_docs"
    name: str = "token_consistency"

    def measure(self, subject: Subject) -> list[Measurement]:
        """All rates with intervals over resampled sentences; samples of one sentence are not independent."""
        tokenizer = subject.text_tokenizer()
        asked = list(items(tokenizer, sentences(self.corpus, self.sentences)))
        asked = [item for item in asked if len(item.prompt) + item.room <= subject.max_length]
        if not asked:
            raise Refused(
                f"{subject.name} can be asked no sentence: too long, or its words have no tokens of their own"
            )
        found = []
        for phase in ("plain", "masked"):
            tallies = [tally(tokenizer, item, self._sampled(subject, item, i, phase)) for i, item in enumerate(asked)]
            found += rates(tallies, phase)
        return found

    def _sampled(self, subject: Subject, item: Item, number: int, phase: str) -> list[list[int]]:
        masks = (self.mask(subject.text_tokenizer(), item.source_ids, len(item.prompt)),) if phase == "masked" else ()
        request = GenerateRequest(
            prompts=[item.prompt] * self.samples,
            max_new_tokens=item.room,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            processors=masks,
            seed=number,
        )
        return [row.tokens for row in subject.generate(request)]


def rates(tallies: Sequence[Tally], phase: str) -> list[Measurement]:
    """``unaligned_rate`` of all samples, the other outcomes of those that are aligned, and shares of the classes."""
    total = sum((t.outcomes for t in tallies), Counter[str]())
    trials = [float(sum(t.outcomes.values())) for t in tallies]
    weights_RD = draw_weights(len(tallies))
    unaligned = ratio("unaligned_rate", [t.outcomes["unaligned"] for t in tallies], trials, weights_RD)
    found = [unaligned]
    aligned = [t for t in tallies if t.outcomes["unaligned"] < sum(t.outcomes.values())]
    if aligned:
        sizes = [float(sum(t.outcomes.values()) - t.outcomes["unaligned"]) for t in aligned]
        weights_RD = draw_weights(len(aligned))
        found += [
            ratio(f"{name}_rate", [t.outcomes[name] for t in aligned], sizes, weights_RD) for name in OUTCOMES[:3]
        ]
    found = [Measurement(m.metric, m.value, m.low, m.high, m.n, phase) for m in found]
    if total["phantom"]:
        ones = sum(t.one_to_one for t in tallies) / total["phantom"]
        found.append(Measurement("phantom_one_to_one", ones, n=total["phantom"], phase=phase))
        for name in CLASSES:
            share = sum(t.classes[name] for t in tallies) / total["phantom"]
            found.append(Measurement("phantom_class_share", share, n=total["phantom"], phase=f"{phase} {name}"))
    return found
