"""Suites: YAML files that say which methods meet which models, tasks and workloads."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from harness.errors import UsageError, unknown_name
from harness.run.tables import Strict, read_tables
from harness.subjects.catalog import DEFAULT_MODEL


class DecodeSpec(Strict):
    """A decode workload: ``count`` prompts of a set, each continued by exactly ``new_tokens`` tokens."""

    prompts: str = Field(description="a prompt set by name, or a question file: FILE.jsonl#GROUP")
    prompt_tokens: int = Field(0, ge=0, description="cut or repeat prompts to this length; 0 leaves them as they are")
    new_tokens: int = Field(48, ge=2)
    count: int = Field(6, ge=1)
    batch: int = Field(1, ge=1)
    warm_up: int = Field(1, ge=1, description="prompts after the counted ones from which a decoder that learns starts")
    forced: bool = Field(False, description="both sides emit what the baseline writes, so that they decode one text")
    digest: str = Field("", description="hash of the question file; found where there is one")

    @model_validator(mode="after")
    def _read_digest(self) -> DecodeSpec:
        """A file decides the outcome by what is in it, not by its name."""
        from tasks.spec_bench import file_digest, is_file

        self.digest = file_digest(self.prompts) if is_file(self.prompts) else ""
        return self

    @classmethod
    def parse(cls, text: str) -> DecodeSpec:
        """Read a workload as it is written."""
        return cls(**parse_decode(text))

    @property
    def name(self) -> str:
        """How the workload is written: ``chat``, ``prose:512x64b4``."""
        length = f":{self.prompt_tokens}" if self.prompt_tokens else ""
        batch = f"b{self.batch}" if self.batch > 1 else ""
        return f"{self.prompts}{length}x{self.new_tokens}{batch}n{self.count}" + ("f" if self.forced else "")


class Entry(Strict):
    """Every method of the entry meets every model, task and workload of it."""

    methods: list[str]
    models: list[str] = [DEFAULT_MODEL]
    tasks: list[str] = []
    decode: list[DecodeSpec] = []
    workloads: bool = False
    probes: bool = False
    seeds: int = Field(1, ge=1, description="seeds of tasks and probes, from the run's on; costs take the first alone")
    limit: float | None = None
    num_fewshot: int | None = None
    batch_size: int = 8
    dtype: str | None = None
    apply_chat_template: bool = False


class Suite(Strict):
    """A named set of entries with its limits."""

    name: str
    description: str = ""
    entries: list[Entry]
    energy: bool = Field(False, description="measure energy in windows of their own (long)")
    energy_window_s: float = Field(20.0, gt=0)
    budget_s: float = Field(30.0, gt=0, description="time after which a pair stops on a whole unit")
    trial_limit_s: float = Field(600.0, gt=0)
    memory_limit_gb: float = Field(16.0, gt=0)


def suite_folder() -> Path:
    """Where the suites that come with the zoo lie."""
    from importlib.resources import files

    return Path(str(files("tasks"))) / "suites"


def suite_names() -> list[str]:
    """Suites that come with the zoo."""
    return sorted(p.stem for p in suite_folder().glob("*.yaml"))


def load_suite(name_or_path: str) -> Suite:
    """Read a suite by name or by path. A typo is a :class:`UsageError` with the nearest valid name."""
    import yaml

    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = suite_folder() / f"{name_or_path}.yaml"
        if not path.is_file():
            raise unknown_name("suite", name_or_path, suite_names(), "or give a .yaml file")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"suite {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"suite {path} is not a table; it needs name and entries")
    return parse_suite(loaded, str(path))


def parse_suite(loaded: dict[str, Any], where: str) -> Suite:
    """Validate a suite's tables."""
    return read_tables(Suite, loaded, f"suite {where}", lambda place: DecodeSpec if "decode" in place else Entry)


def parse_decode(text: str) -> dict[str, Any]:
    """Read a decode workload as it is written: ``prose:512x32b4n6``; an ``f`` behind it forces one text."""
    sets, numbers = r"([a-z]+|.+\.jsonl#[a-z_]+?)", r"(?::(\d+))?(?:x(\d+))?(?:b(\d+))?(?:n(\d+))?"
    match = re.fullmatch(f"{sets}{numbers}(f)?", text)
    if match is None:
        raise UsageError(
            f"cannot read decode workload {text!r}; write prompts:LENGTHxNEWbBATCHnCOUNT, e.g. prose:512x32b1n6, "
            "and f behind it to force both sides to one text"
        )
    names = ("prompt_tokens", "new_tokens", "batch", "count")
    prompts, *given, forced = match.groups()
    found = {name: int(value) for name, value in zip(names, given, strict=True) if value is not None}
    return {"prompts": prompts, **found, **({"forced": True} if forced else {})}


def expand_grid(text: str) -> list[str]:
    """``m@x=[1,2]@y=3`` as ``m@x=1@y=3`` and ``m@x=2@y=3``; every list is an axis."""
    pieces = re.split(r"(=\[[^\]]*\])", text)
    axes = []
    for piece in pieces:
        if piece.startswith("=["):
            try:
                values = ast.literal_eval(piece[1:])
            except (ValueError, SyntaxError):
                values = [v.strip() for v in piece[2:-1].split(",")]
            if not values:
                raise UsageError(f"an empty list in {text!r}")
            axes.append([f"={v}" for v in values])
        else:
            axes.append([piece])
    return ["".join(choice) for choice in itertools.product(*axes)]
