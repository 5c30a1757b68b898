"""Hashes of source files: a trial is stale exactly when code it runs through has changed."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from harness.catalog.registry import find


def _digest(paths: Iterable[Path]) -> str:
    hasher = hashlib.sha256()
    for path in sorted(paths):
        hasher.update(path.name.encode())
        hasher.update(path.read_bytes())
    return hasher.hexdigest()[:16]


@lru_cache(maxsize=256)
def package_sources(package: str) -> str:
    """Hash of all Python files of a package or module, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return ""
    if spec.submodule_search_locations:
        return _digest(path for place in spec.submodule_search_locations for path in Path(place).rglob("*.py"))
    return _digest([Path(spec.origin)])


def method_sources(method_id: str) -> str:
    """Hash of a method's file, of its kind's package and of the shared machinery below it."""
    entry = find(method_id)
    parts = [_digest([entry.source])]
    below = ("harness.kinds.method", "harness.kinds.stack", "harness.subjects", "harness.toolkit")
    parts += [package_sources(p) for p in (f"harness.kinds.{entry.card.kind}", *below)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
