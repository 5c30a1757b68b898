"""A trial: one figure-producing piece of work, identified by the hash of all that decides its outcome."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from harness.catalog.spec import Stack, parse_stack
from harness.kinds.sources import method_sources, package_sources
from harness.measure.provenance import versions

QUALITY, COST, WORKLOAD, PROBE = "quality", "cost", "workload", "probe"
THROUGH = {
    QUALITY: ("harness.evaluate",),
    COST: ("harness.measure", "harness.evaluate"),
    WORKLOAD: ("harness.measure",),
    PROBE: ("harness.measure",),
}
"""Harness packages a trial runs through, beside the method's own kind and the subjects."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """``method`` is a stack as written; ``target`` a task, a decode workload's name, or ``all``."""

    kind: str
    method: str
    model: str
    target: str
    dtype: str | None = None
    device: str = "auto"
    threads: int = 1
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def stack(self) -> Stack:
        """The methods."""
        return parse_stack(self.method)

    def identity(self, machine: str) -> dict[str, Any]:
        """All that decides the outcome; the machine only where the outcome is a cost."""
        stack = self.stack
        ids = (
            {s.id for s in (*stack.specs, *stack.baseline.specs)}
            if self.kind != QUALITY
            else {s.id for s in stack.specs}
        )
        packages = (*THROUGH[self.kind], "harness.evaluate.quality") if self.kind == QUALITY else THROUGH[self.kind]
        return {
            **asdict(self),
            "sources": {i: method_sources(i) for i in sorted(ids)},
            "harness": {p: package_sources(p) for p in packages},
            "versions": outcome_versions(),
            "machine": machine if self.kind != QUALITY else "",
        }

    def trial_id(self, machine: str) -> str:
        """Sixteen hexadecimal digits of the identity's hash."""
        return hashlib.sha256(json.dumps(self.identity(machine), sort_keys=True).encode()).hexdigest()[:16]

    def reproduce(self) -> str:
        """A command that runs this trial alone."""
        words = ["zoo run", f"--method '{self.method}'", f"--model {self.model}"]
        flag = {QUALITY: f"--tasks {self.target}", COST: f"--decode {self.target}"}.get(self.kind, f"--{self.kind}s")
        words += [flag, f"--seed {self.seed}", f"--threads {self.threads}", f"--device {self.device}"]
        words += [f"--dtype {self.dtype}"] if self.dtype else []
        for name in ("limit", "num_fewshot", "batch_size"):
            if self.kind == QUALITY and self.options.get(name) is not None:
                words.append(f"--{name} {self.options[name]}")
        return " ".join([*words, "--rerun"])

    def as_dict(self, machine: str) -> dict[str, Any]:
        """The trial as the worker and the records take it."""
        return {
            **asdict(self),
            "trial_id": self.trial_id(machine),
            "method_kind": self.stack.kind,
            "baseline": str(self.stack.baseline),
            "reproduce": self.reproduce(),
        }


@lru_cache(maxsize=1)
def outcome_versions() -> dict[str, str | None]:
    """Versions of the packages whose change may change a result."""
    return {k: v for k, v in versions().items() if k in ("torch", "transformers", "lm_eval", "tokenizers")}
