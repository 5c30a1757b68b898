"""How much of a text's tokens are words and morphs of its language, by a validator of one's own choice.

Let U be the distinct tokens of a text, less blanks, in lower case, specials left out. valid_token_share (TR%) is the
share of U that the validator knows as a word, root or affix; pure_token_share (Pure%) the share that is exactly one
root or one affix. The weighted ones count each occurrence. A dictionary that the tokenizer was built from finds nearly
all of them good, which says nothing: give one of another origin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import UsageError
from harness.kinds.method import Measurement
from harness.kinds.tokenizer.hostile import comes_back
from harness.kinds.tokenizer.lexicon import read_json
from harness.kinds.tokenizer.vocabulary import segments
from harness.subjects.subject import Subject
from harness.subjects.tokenizer import Tokenizer


class Validator(BaseModel):
    """Words, roots and affixes of a language, in lower case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: frozenset[str] = frozenset()
    roots: frozenset[str] = frozenset()
    affixes: frozenset[str] = frozenset()

    @property
    def pure(self) -> frozenset[str]:
        """What is exactly one root or one affix."""
        return self.roots | self.affixes

    @property
    def valid(self) -> frozenset[str]:
        """What is a word or a morph."""
        return self.words | self.pure


def load_validator(path: str) -> Validator:
    """A JSON file with lists ``words``, ``roots`` and ``affixes``; :class:`UsageError` where it is not one."""
    try:
        return Validator.model_validate(read_json(Path(path).expanduser(), "validator"))
    except ValidationError as error:
        raise UsageError(f"validator {path!r} is no object of lists words, roots and affixes") from error


def token_counts(tokenizer: Tokenizer, texts: Sequence[str], lower: Callable[[str], str]) -> Counter[str]:
    """How often each token stands in the texts, less blanks and in lower case; what is then empty is left out."""
    found = (lower(s.decode("utf-8", "replace")).strip() for text in texts for s in segments(tokenizer, text))
    return Counter(token for token in found if token)


def share(counts: Counter[str], good: frozenset[str], weighted: bool) -> float:
    """Share of the distinct tokens, or of all of them, that are good."""
    total = {token: n if weighted else 1 for token, n in counts.items()}
    return sum(n for token, n in total.items() if token in good) / max(1, sum(total.values()))


@dataclass
class Purity:
    """The probe ``purity``: TR% and Pure% under a validator, and the share of distinct words that come back."""

    texts: Sequence[str]
    validator: Validator | None
    lower: Callable[[str], str] = str.lower
    name: str = "purity"

    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """The figures; without a validator the last one alone."""
        tokenizer = subject.text_tokenizer()
        words = sorted({word for text in self.texts for word in text.split()})
        back = sum(comes_back(tokenizer, word) for word in words) / max(1, len(words))
        found = [Measurement("word_round_trip_fidelity", back, n=len(words))]
        if self.validator is None:
            return found
        counts = token_counts(tokenizer, self.texts, self.lower)
        for metric, good in (("valid_token_share", self.validator.valid), ("pure_token_share", self.validator.pure)):
            found.append(Measurement(metric, share(counts, good, False), n=len(counts)))
            found.append(Measurement(f"{metric}_weighted", share(counts, good, True), n=counts.total()))
        return found
