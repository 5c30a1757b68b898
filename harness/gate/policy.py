"""The policy of a gate: a TOML file that says which trials, which metrics, margins, error rates and budgets."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, model_validator

from harness.errors import UsageError, unknown_name
from harness.measure.decode import ROW_COUNTS, SPEEDUPS
from harness.records.metrics import metrics
from harness.run.suite import DecodeSpec
from harness.run.tables import Strict, read_tables
from harness.subjects.catalog import DEFAULT_MODEL

COUNTS = ("forwards", "mean_accepted_tokens", "tokens_forwarded_per_token", *ROW_COUNTS)
MEMORY, ENERGY = "peak_memory_bytes", "energy_per_token_decode"
WORKLOAD_CLOCKS = {"speedup": "total_s", "speedup_cpu": "cpu_s"}
DECODE_METRICS = (*COUNTS, *SPEEDUPS, MEMORY, ENERGY)
DEFAULTS = {"decode": (*COUNTS, "speedup_total"), "workload": ("speedup",), "task": ()}


class Finite(Strict):
    """A table whose numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class GateTrial(Finite):
    """One comparison: a method on one decode workload, one of its own workloads, or one lm-eval task."""

    method: str
    against: str = Field("", description="the other side; left out: the same method at the base revision")
    model: str = ""
    decode: str = Field("", description="as `zoo run --decode` takes it: chatx16n4")
    workload: str = Field("", description="the name of one of the method's workloads")
    task: str = Field("", description="an lm-eval task")
    include_path: list[str] = []
    limit: float | None = None
    num_fewshot: int | None = None
    batch_size: int = Field(8, ge=1)
    metrics: list[str] = []
    margins: dict[str, float] = {}
    budget_s: float | None = Field(None, gt=0)

    @property
    def what(self) -> str:
        """``decode``, ``workload`` or ``task``."""
        return "decode" if self.decode else "workload" if self.workload else "task"

    @property
    def name(self) -> str:
        """How the trial is called in reports."""
        target = self.decode or self.workload or self.task
        side = f" against {self.against}" if self.against else ""
        return f"{self.method}{side} on {target}" + (f" ({self.model})" if self.model else "")

    @property
    def wanted(self) -> tuple[str, ...]:
        """The metrics to judge, in the order of the policy."""
        return tuple(self.metrics) or DEFAULTS[self.what]

    @property
    def decode_name(self) -> str:
        """The decode workload as records write it."""
        return DecodeSpec.parse(self.decode).name

    def decode_spec(self) -> dict[str, Any]:
        """The decode workload as a table."""
        return DecodeSpec.parse(self.decode).model_dump()

    @model_validator(mode="after")
    def _one_target(self) -> GateTrial:
        if sum(map(bool, (self.decode, self.workload, self.task))) != 1:
            raise ValueError("a trial has one of decode, workload and task")
        if self.task and not self.metrics:
            raise ValueError("a task's trial names its metrics, e.g. metrics = ['exact_match']")
        if self.decode:
            self.decode_spec()
        known = {"decode": DECODE_METRICS, "workload": tuple(WORKLOAD_CLOCKS), "task": tuple(metrics())}[self.what]
        for name in (*self.metrics, *self.margins):
            if name not in known:
                raise unknown_name(f"metric of a {self.what} trial", name, known)
        for name, margin in self.margins.items():
            if margin < 0 or not (margin or name in COUNTS):
                raise ValueError(f"a margin of {margin:g} for {name}; it is positive, and 0 for counts alone")
        return self


class Policy(Finite):
    """A whole gate. Margins are relative for times, memory and counts, absolute for quality."""

    model: str = DEFAULT_MODEL
    dtype: str | None = None
    threads: int = Field(1, ge=1)
    seed: int = 0
    margin: float = Field(0.05, gt=0, lt=1, description="of times and memory; margins of a trial go before it")
    quality_margin: float = Field(0.05, gt=0)
    false_alarm: float = Field(0.01, gt=0, lt=0.5, description="chance that a gate of equal sides alarms at all")
    false_pass: float = Field(0.05, gt=0, lt=0.5, description="chance that one slow-down of the margin passes")
    budget_s: float = Field(30.0, gt=0, description="seconds of timed blocks a trial may take")
    energy_window_s: float = Field(30.0, gt=0)
    trial_limit_s: float = Field(600.0, gt=0, description="seconds one request to a measuring process may take")
    trial: list[GateTrial] = Field(min_length=1)

    def margin_of(self, trial: GateTrial, metric: str) -> float:
        """The margin that holds for a metric of a trial; counts have none unless one is given."""
        default = 0.0 if metric in COUNTS else self.quality_margin if trial.task else self.margin
        return trial.margins.get(metric, default)


def load_policy(path: Path) -> Policy:
    """Read a policy. A typo is a :class:`UsageError` that names the nearest valid name."""
    try:
        loaded = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"policy {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"policy {path} is not TOML: {error}") from error
    return parse_policy(loaded, str(path))


def parse_policy(loaded: dict[str, Any], where: str) -> Policy:
    """Validate a policy's tables."""
    return read_tables(Policy, loaded, f"policy {where}", lambda place: GateTrial)
