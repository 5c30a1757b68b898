"""Less is Better: a vocabulary learnt by reading, as a reader memorises words and phrases.

The vocabulary is a list, the best unit first, that starts with all characters. Reading takes the longest unit c1; now
and then c1 joined to the unit before it is noted and, met again, enters at the tail. A long c1 is tested against the
next shorter unit: both ways of reading go on until they meet, and c1 is punished where its way has more unknown
characters, else more units, else the larger sum of places. A reward moves a unit toward the head by a share of its
place, punishment toward the tail, beyond which it is forgotten; the worst units die unless used.
"""

import random
from itertools import islice
from typing import ClassVar, Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.tokenizer import Properties, Specials, TokenizerMethod
from harness.kinds.tokenizer.base import content_name
from harness.kinds.tokenizer.longest import LongestMatch, LookAhead, Way, longest_first, next_unit


class Reader:
    """The list of units, ``ranks`` (a unit's place in it) and the lives of those on probation."""

    def __init__(self, settings: "LibTokenizer", characters: list[str]) -> None:
        self.settings, self.units = settings, list(characters)
        self.ranks = {unit: i for i, unit in enumerate(self.units)}
        self.lives = dict.fromkeys(self.units, settings.life)

    def read(self, text: str, rng: random.Random) -> None:
        """Read one document: tests, new units, then moves and deaths."""
        moves: dict[str, int] = {}
        tests, noted = [], set()
        at, before, known = 0, "", True
        while at < len(text):
            found = [*islice(longest_first(text, at, self.ranks, self.settings.max_len), 2)]
            unit, rank = (found[0], self.ranks[found[0]]) if found else (text[at], None)
            for _, way, _ in tests:
                way.take(unit, rank)
            if rank is None:
                before, known = ("" if known else before) + unit, False
            else:
                if before and rng.random() < self.settings.rho_in:
                    joined = (before + unit, self.settings.max_len) if known else (before, self.settings.mini_gap)
                    self._note(*joined, noted)
                if len(unit) > 1 and len(found) == 2:
                    tests.append((unit, Way(at).take(unit, rank), Way(at).take(found[1], self.ranks[found[1]])))
                else:
                    self.lives.pop(unit, None)
                before, known = unit, True
            at += len(unit)
            tests = [test for test in tests if not self._judged(text, test, moves)]
        self._close(moves)

    def _note(self, candidate: str, limit: int, noted: set[str]) -> None:
        """Remember a candidate; the second time it becomes the last unit."""
        if candidate in noted and candidate not in self.ranks:
            self.ranks[candidate] = len(self.units)
            self.units.append(candidate)
        noted |= {candidate} if len(candidate) <= limit else set()

    def _judged(self, text: str, test: tuple[str, Way, Way], moves: dict[str, int]) -> bool:
        """Read the other way on; whether both have met, and then what becomes of the unit."""
        unit, way, other = test
        while other.end < way.end:
            other.take(*next_unit(text, other.end, self.ranks, self.settings.max_len))
        if other.end == way.end and way.cost > other.cost:
            moves |= {unit: 1, next_unit(unit[:-1], 0, self.ranks, self.settings.max_len)[0]: -1}
        elif other.end == way.end:
            moves[unit] = -1
            self.lives.pop(unit, None)
        return other.end == way.end

    def _close(self, moves: dict[str, int]) -> None:
        """The end of a document: deaths, moves, and the worst units on probation."""
        keys = {}
        for place, unit in enumerate(self.units):
            key = place + moves.get(unit, 0) * (int(place * self.settings.eta) + 1.5)
            if self.lives.get(unit, 3) > 2 and key < len(self.units):
                keys[unit] = key
        self.units = sorted(keys, key=lambda unit: keys[unit])
        self.ranks = {unit: i for i, unit in enumerate(self.units)}
        worst = self.units[-max(1, round(len(self.units) * self.settings.rho_out)) :]
        left = {unit: self.lives[unit] - 1 for unit in self.lives.keys() & keys}
        self.lives = dict.fromkeys(worst, self.settings.life) | left


@method(
    id="lib_tokenizer",
    kind="tokenizer",
    title="Less is Better (LiB)",
    paper="arXiv:2403.00417",
    guarantee="approximate",
    baseline="native",
    needs="a trainer run of a minute",
    details={
        "algorithm": "reference code of the learner on characters; the moves of a document are applied together",
        "size": "reconstruction: the best units of the list; the algorithm has no target size",
        "encoding": "reference code: longest; its earlier variant: lookahead, where the next shorter unit is taken if "
        "its way is the better one. Ours: a character that is no unit stays bytes, ways that do not meet are equal",
    },
)
class LibTokenizer(TokenizerMethod):
    """At most ``vocab_size`` text tokens, learnt from ``documents`` readings."""

    trains: ClassVar[bool] = True
    properties = Properties(lossless=True, byte_complete=True, crosses_words=True)

    vocab_size: int = Field(8192, ge=256, le=262144, description="text tokens at most, the 256 bytes included")
    documents: int = Field(10_000, ge=1, description="documents read, drawn with replacement")
    life: int = Field(10, ge=2, description="documents that a unit on probation has")
    max_len: int = Field(12, ge=2, description="characters of a unit at most")
    rho_in: float = Field(0.25, ge=0, le=1, description="probability that a joined unit is considered")
    rho_out: float = Field(0.0001, ge=0, le=1, description="share of the list that goes on probation")
    eta: float = Field(0.2, ge=0, le=1, description="share of its place that a unit moves by")
    mini_gap: int = Field(2, ge=1, description="unknown characters that may become a unit")
    encoding: Literal["longest", "lookahead"] = Field("longest", description="which unit is taken at each place")
    corpus: str = Field("python_docs", description="corpus name, or path of a text file or folder")
    train_bytes: int = Field(4_000_000, ge=1, description="text to train on, at most")

    def train(self, texts, seed):  # type: ignore[no-untyped-def]
        """The units, best first; single bytes among them count toward no size."""
        rng, texts = random.Random(seed), [text for text in texts if text]
        reader = Reader(self, sorted({c for text in texts for c in text if not "\ud800" <= c <= "\udfff"}))
        for _ in range(self.documents):
            reader.read(rng.choice(texts), rng)
        longer = [unit for unit in reader.units if len(unit.encode()) > 1]
        dropped = set(longer[self.vocab_size - 256 :])
        return [unit for unit in reader.units if unit not in dropped]

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The tokenizer over these units with the subject's special tokens."""
        name, specials = content_name(f"lib_{self.encoding}", artifact), Specials.of(tokenizer)
        units = [unit for unit in artifact if len(unit.encode()) > 1]
        if self.encoding == "longest":
            return LongestMatch(name, units, specials)
        return LookAhead(name, units, {unit: i for i, unit in enumerate(artifact)}, specials)
