"""Hashes of source files: a trial is stale exactly when code it runs through has changed."""

from __future__ import annotations

import ast
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


def _own_imports(module: str, source: Path, seen: dict[str, Path]) -> None:
    """Collect the files a method imports from its own distribution, and what they import, by reading them."""
    seen[module] = source
    top = module.partition(".")[0]
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            package = module.rpartition(".")[0]
            place = importlib.util.resolve_name(base, package) if node.level else base
            names = [place, *(f"{place}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.partition(".")[0] == top and name not in seen:
                path = _module_file(source, module, name)
                if path is not None:
                    _own_imports(name, path, seen)


def _module_file(source: Path, module: str, name: str) -> Path | None:
    """The file of another module of the same distribution; None where ``name`` is no module."""
    depth = module.count(".") + (source.name == "__init__.py")
    root = source.parents[depth]
    stem = root.joinpath(*name.split("."))
    candidates = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def method_sources(method_id: str) -> str:
    """Hash of a method's file, what it imports of its own distribution, its kind's package and the shared machinery."""
    entry = find(method_id)
    files: dict[str, Path] = {}
    _own_imports(entry.module, entry.source, files)
    parts = [_digest(files.values())]
    below = ("harness.kinds.method", "harness.kinds.stack", "harness.subjects", "harness.toolkit")
    parts += [package_sources(p) for p in (f"harness.kinds.{entry.card.kind}", *below)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
