"""Runs a method's invariants, and remembers what came out under the hash of the sources they ran through."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from harness.catalog.spec import MethodSpec
from harness.errors import EnvironmentFailed, Refused
from harness.kinds.method import Check, Method
from harness.kinds.sources import method_sources, package_sources
from harness.subjects.catalog import cache_dir
from harness.subjects.load import load_subject
from harness.subjects.subject import Subject

PASSED, FAILED, RAISED = "passed", "failed", "raised"
CHECK_MODEL = "tiny-random"


@dataclass(frozen=True)
class CheckResult:
    """One invariant's outcome: ``passed``, ``failed`` (its assertion) or ``raised`` (anything else went wrong)."""

    name: str
    outcome: str
    reason: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the invariant holds."""
        return self.outcome == PASSED


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _run_one(check: Check, seed: int) -> CheckResult:
    """Run a check with its own random state, so that its outcome does not depend on the checks before it."""
    started = time.perf_counter()
    outcome, reason = PASSED, ""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            check.run()
        except Refused:
            raise
        except AssertionError as error:
            outcome, reason = FAILED, _one_line(error)
        except Exception as error:  # noqa: BLE001 - a method may raise anything; the other checks still run
            outcome, reason = RAISED, f"{type(error).__name__}: {_one_line(error)}"
    return CheckResult(check.name, outcome, reason, time.perf_counter() - started)


def run_checks(method: Method, subject: Subject, seed: int = 0) -> list[CheckResult]:
    """All invariants of a method on a subject, in order. One that fails does not stop the others.

    Raises :class:`Refused` where the method cannot work on this subject, and :class:`EnvironmentFailed` where it
    offers no checks: silence is not a pass.
    """
    try:
        checks = list(method.checks(subject))
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - a method may raise anything; this is its outcome
        return [CheckResult("checks", RAISED, f"{type(error).__name__}: {_one_line(error)}")]
    if not checks:
        raise EnvironmentFailed(f"{method.card.id} offers no checks, so nothing can be said of it")
    return [_run_one(check, seed) for check in checks]


def _cache_path(spec: MethodSpec, subject: Subject) -> Path:
    identity = [
        str(spec),
        method_sources(spec.id),
        package_sources("harness.kinds.invariants"),
        subject.name,
        str(subject.dtype),
        subject.device.type,
        torch.__version__,
    ]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:20]
    return cache_dir() / "checks" / f"{spec.id}-{key}.json"


def _read(path: Path) -> list[CheckResult] | None:
    """Earlier results; None where there are none, or where the file is damaged."""
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return [CheckResult(**row) for row in rows] or None
    except (OSError, ValueError, TypeError):
        return None


def _store(path: Path, results: Sequence[CheckResult]) -> None:
    """Keep results by rename. What raised is not kept: memory or a device may have been the cause."""
    if any(result.outcome == RAISED for result in results):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, work = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump([asdict(result) for result in results], file)
    Path(work).replace(path)


def check_subject(spec: MethodSpec, subject: Subject) -> list[CheckResult]:
    """Run a method's checks now and remember the results."""
    results = run_checks(spec.build(), subject)
    _store(_cache_path(spec, subject), results)
    return results


def check_cached(
    spec: MethodSpec, model: str = CHECK_MODEL, device: str = "auto", dtype: str | None = None
) -> list[CheckResult]:
    """A method's checks on a model: remembered for these sources, model, type and device, else run now."""
    subject = load_subject(model, device, dtype)
    held = _read(_cache_path(spec, subject))
    return held if held is not None else check_subject(spec, subject)


def known_results(
    spec: MethodSpec, model: str = CHECK_MODEL, device: str = "auto", dtype: str | None = None
) -> list[CheckResult] | None:
    """What earlier checks of these sources on this model gave; None where they never ran."""
    return _read(_cache_path(spec, load_subject(model, device, dtype)))
