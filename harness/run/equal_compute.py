"""Which models text in fewer bits at equal compute: tokenizers under one small model, or models without a tokenizer.

An arm is a stack that ends in an architecture: ``bpe@vocab_size=2048+tiny_llama``, ``byte+tiny_llama``. Every arm gets
the same training FLOPs, rows that are as long in bytes, and its own learning rate, chosen on validation documents at a
fifth of the budget. It is then trained from several seeds, and bits per byte on test documents are compared in pairs.
A difference is called where its interval leaves out 0 and every seed agrees on the sign; else none was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from harness.catalog.spec import parse_stack
from harness.errors import UsageError
from harness.kinds.architecture import ArchitectureMethod
from harness.kinds.architecture.document_bits import document_bits
from harness.kinds.artifacts import ArtifactStore
from harness.kinds.stack import applied
from harness.stats.intervals import Estimate
from harness.stats.rates import difference_of_rates
from harness.subjects.subject import Subject
from harness.toolkit.corpora import documents

TUNING = 0.2
"""Part of the budget at which learning rates are compared."""
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What is equal for all arms. ``window``: bytes of a training row, and of a scoring window with its context."""

    flops: float
    seeds: int = 3
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    window: int = 512
    corpus: str = "python_docs"
    test_bytes: int = 100_000

    def __post_init__(self) -> None:
        if self.flops <= 0 or self.seeds < 1 or not self.rates or min(self.rates) <= 0 or self.window < 32:
            raise UsageError("flops, seeds and rates must be positive, and a window has 32 bytes or more")

    def texts(self, split: str) -> list[str]:
        """Documents of a split."""
        return documents(self.corpus, split, self.test_bytes)


@dataclass(frozen=True)
class Trained:
    """One training: bits of each document, and what it cost."""

    bits: list[float]
    flops: float
    steps: int
    seconds: float
    parameters: int


@dataclass(frozen=True)
class Arm:
    """An arm's chosen rate, and its trainings by seed with their bits on the test documents."""

    name: str
    rate: float
    tokens_per_byte: float
    runs: list[Trained]

    def mean_bits(self) -> list[float]:
        """Bits of each document, mean over seeds."""
        return [sum(column) / len(self.runs) for column in zip(*(run.bits for run in self.runs), strict=True)]


@dataclass(frozen=True)
class Finding:
    """Bits per byte of one arm less those of another: over documents, and by seed."""

    first: str
    second: str
    difference: Estimate
    by_seed: list[float]

    @property
    def found(self) -> bool:
        """Whether a difference is called."""
        low, high = self.difference.low, self.difference.high
        apart = low is not None and high is not None and (low > 0 or high < 0)
        return apart and len({d > 0 for d in self.by_seed}) == 1

    def line(self) -> str:
        """The finding in words."""
        d, seeds = self.difference, ", ".join(f"{x:+.4f}" for x in self.by_seed)
        figures = f"(first less second: {d.value:+.4f} bit/byte [{d.low:+.4f}, {d.high:+.4f}]; by seed {seeds})"
        if not self.found:
            return f"no difference found between {self.first} and {self.second} {figures}"
        verdict = "needs fewer bits" if d.value < 0 else "needs more bits"
        return f"{self.first} {verdict} than {self.second} {figures}"


@contextmanager
def opened(name: str, subject: Subject, terms: Terms, store: ArtifactStore) -> Iterator[tuple[Any, Subject, float]]:
    """An arm's architecture with rows of ``window`` bytes, the subject it is trained on, and tokens a byte there."""
    *before, last = parse_stack(name).build()
    if not isinstance(last, ArchitectureMethod):
        raise UsageError(f"{name} does not end in an architecture, so there is nothing to train from random weights")
    with applied(before, subject, store.obtain) as base:
        texts, tokenizer = terms.texts("valid"), base.text_tokenizer()
        density = sum(len(tokenizer.encode(t)) for t in texts) / sum(len(t.encode()) for t in texts)
        length = max(8, round(terms.window * density))
        yield replace(last, corpus=terms.corpus, length=length), base, density


def trained(method: Any, base: Subject, texts: Sequence[str], window: int, store: ArtifactStore) -> Trained:
    """Train (or find) one model and ask it for its bits."""
    artifact = store.obtain(method, base)
    with applied((method,), base, store.obtain) as subject:
        bits = document_bits(subject, texts, window)
        parameters = sum(p.numel() for p in subject.model.parameters())
    steps = sum(len(stage["losses"]) for stage in artifact["stages"])
    seconds = sum(stage["seconds"] for stage in artifact["stages"])
    return Trained(bits, artifact["flops"], steps, seconds, parameters)


def run_arm(name: str, subject: Subject, terms: Terms, say: Say) -> Arm:
    """Choose an arm's rate, then train it from every seed."""
    tried = {}
    with opened(name, subject, terms, ArtifactStore(0)) as (method, base, _):
        for rate in terms.rates if len(terms.rates) > 1 else ():
            small = replace(method, flops=TUNING * terms.flops, learning_rate=rate)
            tried[rate] = sum(trained(small, base, terms.texts("valid"), terms.window, ArtifactStore(0)).bits)
            say(f"{name}: rate {rate:g}, {tried[rate]:.0f} bits of validation text")
    best = min(tried, key=lambda rate: tried[rate]) if tried else terms.rates[0]
    runs = []
    for seed in range(terms.seeds):
        store = ArtifactStore(seed)
        with opened(name, subject, terms, store) as (method, base, density):
            full = replace(method, flops=terms.flops, learning_rate=best)
            runs.append(trained(full, base, terms.texts("test"), terms.window, store))
        say(f"{name}: seed {seed}, {runs[-1].steps} steps, {runs[-1].flops:.3g} FLOPs, {runs[-1].seconds:.0f} s")
    return Arm(name, best, density, runs)


def compare(arms: Sequence[Arm], sizes: Sequence[int]) -> list[Finding]:
    """Every pair of arms, on documents of these sizes in bytes."""
    found = []
    for one, other in combinations(arms, 2):
        total = sum(sizes)
        by_seed = [(sum(a.bits) - sum(b.bits)) / total for a, b in zip(one.runs, other.runs, strict=True)]
        difference = difference_of_rates(one.mean_bits(), other.mean_bits(), list(map(float, sizes)))
        found.append(Finding(one.name, other.name, difference, by_seed))
    return found


def contest(names: Sequence[str], subject: Subject, terms: Terms, say: Say) -> tuple[list[Arm], list[Finding]]:
    """All arms and what was found between them."""
    arms = [run_arm(name, subject, terms, say) for name in names]
    return arms, compare(arms, [len(text.encode()) for text in terms.texts("test")])
