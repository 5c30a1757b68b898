"""Artifacts of methods that train: made once, kept under the hash of all that decides them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness.catalog.spec import MethodSpec
from harness.errors import EnvironmentFailed
from harness.kinds.method import Artifact, Measurement, Method, PrepareContext
from harness.kinds.sources import method_sources
from harness.subjects.catalog import cache_dir
from harness.subjects.load import load_subject
from harness.subjects.subject import Subject

FORM = 2
"""Of the stored file."""


@contextmanager
def _counted(costs: list[Measurement], metered_device: str) -> Iterator[None]:
    """Add to ``costs`` what happens inside: seconds and, with a device to meter, joules."""
    with ExitStack() as windows:
        window = None
        if metered_device:
            from harness.measure.energy import EnergyMeter

            window = windows.enter_context(windows.enter_context(EnergyMeter(metered_device)).window("train"))
        started = time.perf_counter()
        yield
        costs.append(Measurement("train_seconds", time.perf_counter() - started, source="clock"))
    if window is not None and window.reading is not None and window.reading.gross_j is not None:
        costs.append(Measurement("train_joules", window.reading.gross_j, source=window.reading.source))


@dataclass
class ArtifactStore:
    """Makes and finds artifacts. ``costs`` holds what making each one cost when it was made, by method id.

    Energy is among it where the store was ``metered`` then, and the making was long enough for the meter.
    """

    seed: int = 0
    metered: bool = False
    costs: dict[str, list[Measurement]] = field(default_factory=dict)
    _last: tuple[Path, Any] | None = None

    def key(self, method: Method, subject: Subject) -> str:
        """Hash of the method's sources and parameters, the subject, its type and the seed."""
        identity = {
            "method": method.signature,
            "sources": method_sources(method.card.id),
            "subject": subject.name,
            "stack": subject.stack,
            "dtype": str(subject.dtype),
            "seed": self.seed,
            "torch": torch.__version__,
            "form": FORM,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]

    def path(self, method: Method, subject: Subject) -> Path:
        """Where the artifact lies or will lie."""
        return cache_dir() / "artifacts" / f"{method.card.id}-{self.key(method, subject)}.pt"

    def obtain(self, method: Method, subject: Subject) -> Artifact:
        """Load the artifact, or make and keep it. The last one stays in memory, as timed blocks open a method often."""
        path = self.path(method, subject)
        if self._last is None or self._last[0] != path:
            self._last = path, self._load(method, subject, path)
        held = self._last[1]
        self.costs[method.card.id] = [Measurement(**cost) for cost in held["costs"]]
        return held["artifact"]

    def _load(self, method: Method, subject: Subject, path: Path) -> Any:
        if not path.is_file():
            self._make(method, subject, path)
        try:
            return torch.load(path, weights_only=True, map_location=subject.device)
        except (RuntimeError, OSError, EOFError) as error:
            raise EnvironmentFailed(f"artifact {path} cannot be read ({error}); delete it and run again") from error

    def _make(self, method: Method, subject: Subject, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        context = PrepareContext(
            seed=self.seed,
            folder=path.with_suffix(""),
            load_subject=lambda name: load_subject(
                name, str(subject.device), str(subject.dtype).removeprefix("torch.")
            ),
            artifact_of=lambda text: self.obtain(MethodSpec.parse(text).build(), subject),
        )
        costs: list[Measurement] = []
        with _counted(costs, str(subject.device) if self.metered else ""):
            artifact = method.prepare(subject, context)
        held = {"artifact": artifact, "costs": [asdict(cost) for cost in costs]}
        descriptor, work = tempfile.mkstemp(dir=path.parent, prefix="making-", suffix=".tmp")
        os.close(descriptor)
        try:
            torch.save(held, work)
            Path(work).replace(path)
            shutil.rmtree(context.folder, ignore_errors=True)
        finally:
            Path(work).unlink(missing_ok=True)
