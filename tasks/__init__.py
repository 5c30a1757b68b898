"""lm-eval tasks, their data and generators, prompts of the decode workloads, and suites."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any


def include_path() -> Path:
    """The folder of the task YAMLs, for lm-eval's ``include_path``."""
    return Path(__file__).parent


def _read(path: Path) -> dict[str, Any]:
    """A YAML with what it includes, as lm-eval merges them; ``!function`` and other tags stay text."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: f"{suffix} {node.value}")
    config = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    if not isinstance(config, dict):
        return {}
    included = config.pop("include", [])
    merged: dict[str, Any] = {}
    for name in [included] if isinstance(included, str) else included:
        merged |= _read(path.parent / name)
    return merged | config


@lru_cache(maxsize=1)
def _configs() -> tuple[dict[str, Any], ...]:
    """All YAMLs of this folder but the suites."""
    paths = sorted(path for path in include_path().rglob("*.yaml") if path.parent.name != "suites")
    return tuple(_read(path) for path in paths)


def our_configs() -> dict[str, dict[str, Any]]:
    """The zoo's own tasks: name -> configuration as it stands in its YAML. Imports neither lm-eval nor torch."""
    return {config["task"]: config for config in _configs() if isinstance(config.get("task"), str)}


def our_tasks() -> dict[str, str]:
    """The zoo's own tasks: name -> lm-eval's output type."""
    return {name: config["output_type"] for name, config in our_configs().items()}


def our_groups() -> dict[str, list[str]]:
    """The zoo's own groups of tasks: name -> its tasks."""
    return {config["group"]: config["task"] for config in _configs() if isinstance(config.get("group"), str)}
