"""What every method is, whatever its kind: it prepares an artifact, and it turns a subject into a subject."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from harness.catalog.card import Card
from harness.errors import Refused
from harness.subjects.subject import Subject

Artifact = Any
"""Whatever ``prepare`` returns, made of tensors and plain data: it is kept by ``torch.save`` and read back with
``weights_only=True``, so that an artifact can never carry code."""


@dataclass(frozen=True)
class PrepareContext:
    """What ``prepare`` may use: a seed, a scratch folder, and models and other methods' artifacts by name.

    The folder belongs to the artifact that is made: an interrupted training may find there what it kept. It need not
    exist, and is deleted once the artifact is stored.
    """

    seed: int
    folder: Path
    load_subject: Callable[[str], Subject]
    artifact_of: Callable[[str], Artifact]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A named callable that micro-benchmarks time, with a slow reference and an error bound.

    ``make`` builds the inputs and returns the timed callable; ``reference`` builds, on the same inputs, the plain
    implementation that is the other side of the pair (None: the baseline method's workload of the same name is).
    Both callables return the result as a tensor, a sequence of tensors or any comparable value, and ``max_error``
    bounds the relative RMS error between the two (None where results differ by design). ``units`` says what one call
    processes, for throughput: ``{"tokens": 4096}`` or ``{"bytes": 10_000_000}``; ``flops`` and ``bytes_moved`` are
    ledger figures of the candidate, ``figures`` counts further ones by metric, once. A callable must leave its inputs
    as it found them.
    """

    name: str
    make: Callable[[], Callable[[], Any]]
    reference: Callable[[], Callable[[], Any]] | None = None
    max_error: float | None = None
    units: Mapping[str, float] = field(default_factory=dict)
    flops: float | None = None
    bytes_moved: float | None = None
    figures: Callable[[], Mapping[str, float]] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """One figure: a metric of the dictionary, its value and, where it is an estimate, its interval."""

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    phase: str = ""
    source: str = "count"


class Probe(Protocol):
    """Measures something of a subject that no lm-eval task expresses."""

    name: str

    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """The figures, each under a name of the metric dictionary."""


@dataclass(frozen=True)
class Check:
    """One invariant. ``run`` raises AssertionError with the figures that break it."""

    name: str
    run: Callable[[], None]


class Method:
    """Base of all methods. A subclass is made a frozen dataclass by the ``@method`` decorator.

    ``changes`` says what its subject does differently: a subset of ``{"score", "generate"}``. A task that asks only for
    what a method does not change reads "as baseline" on the leaderboard and is not run. ``replaces`` names the parts of
    a subject that it makes its own (``cache``, ``decoder``, ``tokenizer``, ``weights``): two methods of a stack cannot
    both own one.
    """

    card: ClassVar[Card]
    changes: ClassVar[frozenset[str]] = frozenset({"score", "generate"})
    replaces: ClassVar[frozenset[str]] = frozenset()
    trains: ClassVar[bool] = False

    @property
    def signature(self) -> str:
        """The id with the parameters that differ from their defaults, as it is written on the command line."""
        changed = []
        for name, field_ in getattr(self, "__dataclass_fields__", {}).items():
            value, default = getattr(self, name), field_.default
            if value != getattr(default, "default", default):
                changed.append(f"{name}={value}")
        return "@".join([self.card.id, *sorted(changed)])

    def prepare(self, subject: Subject, ctx: PrepareContext) -> Artifact:
        """Train, calibrate or build what ``apply`` needs. Called only where ``trains`` is true; cached by content."""
        raise NotImplementedError(f"{self.card.id} declares trains = True but has no prepare")

    def require_weights(self, artifact: Artifact) -> None:
        """Refuse to apply what was never trained."""
        if artifact is None:
            raise Refused(
                f"{self.card.id} has no trained weights to apply; prepare it first (zoo train {self.card.id})"
            )

    def training_measurements(self, artifact: Artifact) -> Sequence[Measurement]:
        """What ``prepare`` recorded of itself: updates, tokens, rewards."""
        return ()

    def training_samples(self, artifact: Artifact) -> Sequence[Mapping[str, Any]]:
        """Raw values behind them, as rows ``side``, ``unit``, ``name``, ``value``: learning curves, one unit a step."""
        return ()

    def apply(self, subject: Subject, artifact: Artifact = None) -> AbstractContextManager[Subject]:
        """Yield the new subject; the given one is as before once the context is left."""
        return nullcontext(subject)

    def workloads(self, subject: Subject) -> Iterable[Workload]:
        """What micro-benchmarks time for this method, on the subject's device and dtype."""
        return ()

    def probes(self) -> Iterable[Probe]:
        """Measurements of the subject this method yields."""
        return ()

    def prior_probes(self, seed: int) -> Iterable[Probe]:
        """Measurements of the subject as it is before a preparation with this seed: of what that would be made from."""
        return ()

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The kind's invariants for this method on a subject; a method may add its own."""
        return ()
