"""One gate from request to stored result: sides, processes, and a folder that keeps every visit as it comes."""

from __future__ import annotations

import datetime
import functools
import json
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import EnvironmentFailed
from harness.gate.finding import Report
from harness.gate.judge import Judged
from harness.gate.policy import GateTrial, Policy
from harness.gate.reports import as_document
from harness.gate.revision import unpack
from harness.gate.run import Sides, run_gate
from harness.run.lockstep import Place, Tell


@dataclass(frozen=True)
class Request:
    """What a gate is asked to do. ``reference`` is a folder of records; without one the base revision runs live."""

    policy: Policy
    base: str
    repository: Path
    base_python: str
    reference: Path | None
    force: bool
    device: str
    results: Path


def hold_gate(request: Request, tell: Tell) -> Report:
    """Run the gate and store it under ``<results>/gates``, trial by trial."""
    policy = request.policy
    candidate = Place(policy.model, request.device, policy.dtype, policy.threads, policy.seed)
    folder = _folder(request.results)
    keep, log = functools.partial(_store, folder), folder / "stations.log"

    if request.reference is not None:
        from harness.gate.stored import run_against_stored

        report = run_against_stored(policy, candidate, request.reference, request.force, log, tell, keep)
        report.candidate, report.baseline = "this checkout", f"the run stored in {request.reference}"
    else:
        sides, names = _sides(request, candidate)
        report = run_gate(policy, sides, log, tell, keep)
        report.candidate, report.baseline = names
    (folder / "gate.json").write_text(json.dumps(as_document(report), indent=1, default=str), encoding="utf-8")
    tell(f"kept in {folder}")
    return report


def _sides(request: Request, candidate: Place) -> tuple[Sides, tuple[str, str]]:
    """Both sides, and what they are called. No revision is looked up where every trial names its rival."""
    if all(trial.against for trial in request.policy.trial):
        return Sides(candidate, None), ("each method", "its rival")
    revision = unpack(request.base, request.repository)
    baseline = replace(candidate, source=str(revision.folder), python=request.base_python)
    return Sides(candidate, baseline), ("this checkout", revision.commit[:12])


def _folder(results: Path) -> Path:
    now = datetime.datetime.now(datetime.UTC)
    folder = results / "gates" / f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise EnvironmentFailed(f"cannot write results into {folder}: {error.strerror}; give --output_path") from error
    return folder.resolve()


def _store(folder: Path, trial: GateTrial, judged: Judged) -> None:
    """A trial's findings and every visit behind them, so that each verdict can be computed again."""
    visits: list[dict[str, Any]] = [
        {"block": number, "side": visit.side, "unit": visit.unit, **visit.result}
        for number, block in enumerate(judged.blocks)
        for visit in block
    ]
    number = len(list(folder.glob("trial-*.json")))
    document: dict[str, Any] = {"trial": trial.model_dump(), "findings": [asdict(f) for f in judged.findings]}
    document |= {"coins": judged.coins, "visits": visits}
    work = folder / ".trial.json"
    work.write_text(json.dumps(document), encoding="utf-8")
    work.replace(folder / f"trial-{number:03d}.json")
