"""Makes trials of a suite, leaves out those already recorded, and groups the rest so that a model loads once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from harness.catalog.spec import parse_stack
from harness.run.suite import Entry, Suite, expand_grid
from harness.run.trial import COST, PROBE, QUALITY, WORKLOAD, Trial


@dataclass(frozen=True)
class Scope:
    """What of a suite is wanted, and where it runs."""

    quality: bool = True
    cost: bool = True
    device: str = "auto"
    threads: int = 1
    seed: int = 0
    dtype: str | None = None
    include_path: tuple[str, ...] = ()
    log_samples: bool = True


def make_trials(suite: Suite, scope: Scope) -> list[Trial]:
    """All trials of a suite, each once, in the order of the file."""
    trials: dict[str, Trial] = {}
    for entry in suite.entries:
        for text in entry.methods:
            for method in expand_grid(text):
                canonical = str(parse_stack(method))
                for model in entry.models:
                    for seed in range(scope.seed, scope.seed + entry.seeds):
                        wanted = replace(scope, seed=seed, cost=scope.cost and seed == scope.seed)
                        for trial in _entry_trials(suite, entry, canonical, model, wanted):
                            trials.setdefault(repr(trial), trial)
    return list(trials.values())


def _entry_trials(suite: Suite, entry: Entry, method: str, model: str, scope: Scope) -> Iterator[Trial]:
    common: dict[str, Any] = {
        "method": method,
        "model": model,
        "dtype": scope.dtype or entry.dtype,
        "device": scope.device,
        "threads": scope.threads,
        "seed": scope.seed,
    }
    options: dict[str, Any]
    if scope.quality:
        options = {
            "limit": entry.limit,
            "num_fewshot": entry.num_fewshot,
            "batch_size": entry.batch_size,
            "apply_chat_template": entry.apply_chat_template,
            "include_path": list(scope.include_path),
            "log_samples": scope.log_samples,
        }
        for task in entry.tasks:
            yield Trial(kind=QUALITY, target=task, options=options, **common)
    energy = {"window_s": suite.energy_window_s} if suite.energy else None
    if scope.cost:
        for spec in entry.decode:
            options = {"decode": spec.model_dump(), "budget_s": suite.budget_s, "energy": energy}
            yield Trial(kind=COST, target=spec.name, options=options, **common)
        if entry.workloads:
            options = {"budget_s": suite.budget_s, "energy": energy}
            yield Trial(kind=WORKLOAD, target="all", options=options, **common)
    if entry.probes:
        yield Trial(kind=PROBE, target="all", options={"energy": energy} if energy else {}, **common)


def group_trials(trials: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Trials that share a loaded model, in the order of their first member."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for trial in trials:
        groups.setdefault(tuple(trial[k] for k in ("model", "dtype", "device", "threads", "seed")), []).append(trial)
    return list(groups.values())
