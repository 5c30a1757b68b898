"""Finds methods: every installed distribution may name one package in the entry-point group ``token_zoo.methods``.

Cards are read from the source text. Nothing of a method is imported before it is used, so the catalog opens in
milliseconds and a package that fails to import harms nobody else.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from harness.catalog.card import Card
from harness.errors import EnvironmentFailed, unknown_name

GROUP = "token_zoo.methods"


@dataclass(frozen=True)
class Entry:
    """One method of the catalog: its card and where its class can be imported from."""

    card: Card
    module: str
    class_name: str
    source: Path
    distribution: str

    def load(self) -> type[Any]:
        """Import the method's class."""
        try:
            return getattr(importlib.import_module(self.module), self.class_name)  # type: ignore[no-any-return]
        except Exception as error:
            raise EnvironmentFailed(
                f"method {self.card.id!r} cannot be imported from {self.source}: {error}"
            ) from error


@dataclass(frozen=True)
class Catalog:
    """All methods by id, and one line for each file whose card could not be read."""

    entries: dict[str, Entry]
    problems: tuple[str, ...]


def _card_arguments(node: ast.ClassDef) -> dict[str, Any] | None:
    """Return the literal arguments of ``@method(...)``, or None where the class has no such decorator."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).rpartition(".")[2] == "method":
            return {k.arg: ast.literal_eval(k.value) for k in decorator.keywords if k.arg}
    return None


def _read_package(package: str, distribution: str, problems: list[str]) -> Iterator[Entry]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError) as error:
        problems.append(f"{distribution}: package {package!r} cannot be found: {error}")
        return
    if spec is None or not spec.submodule_search_locations:
        problems.append(f"{distribution}: package {package!r} cannot be found")
        return
    for location in spec.submodule_search_locations:
        root = Path(location)
        for path in sorted(root.rglob("*.py")):
            module = ".".join([package, *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
            yield from _read_file(path, module, distribution, problems)


def _read_file(path: Path, module: str, distribution: str, problems: list[str]) -> Iterator[Entry]:
    text = path.read_text(encoding="utf-8")
    if "@method(" not in text:
        return
    try:
        for node in ast.parse(text).body:
            arguments = _card_arguments(node) if isinstance(node, ast.ClassDef) else None
            if arguments is not None:
                yield Entry(Card(**arguments), module, node.name, path, distribution)  # type: ignore[attr-defined]
    except (SyntaxError, ValueError, TypeError) as error:
        problems.append(f"{path}: its card cannot be read (arguments must be literals): {error}")


@lru_cache(maxsize=1)
def read_catalog() -> Catalog:
    """Read the cards of all installed distributions. On a doubled id the first distribution keeps it."""
    entries: dict[str, Entry] = {}
    problems: list[str] = []
    seen: set[str] = set()
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.value != "methods", p.name)):
        if point.value in seen:
            continue
        seen.add(point.value)
        for entry in _read_package(point.value, point.name, problems):
            if entry.card.id in entries:
                problems.append(f"{entry.source}: id {entry.card.id!r} is taken by {entries[entry.card.id].source}")
            else:
                entries[entry.card.id] = entry
    return Catalog(entries, tuple(problems))


def catalog() -> dict[str, Entry]:
    """All methods by id."""
    return read_catalog().entries


def kinds_compared(kind: str) -> list[str]:
    """A kind and those of its methods' baselines, which is another where plain decoding is; none without a kind."""
    cards = [entry.card for entry in catalog().values() if entry.card.kind == kind]
    baselines = [catalog()[card.baseline].card.kind for card in cards if card.baseline in catalog()]
    return sorted({kind, *baselines}) if kind else []


def find(method_id: str) -> Entry:
    """The entry of a method, or an error that names the nearest id."""
    entries = catalog()
    if method_id not in entries:
        raise unknown_name("method", method_id, entries, "zoo list shows all")
    return entries[method_id]
