"""A method's documentation page, made from its card, its docstring and its fields."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from harness.catalog.card import KINDS
from harness.catalog.registry import Entry

BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "multiple of", "min_length": "length >="}


def source_path(entry: Entry) -> str:
    """The method's file as its package names it: the same on every machine."""
    return entry.module.replace(".", "/") + ".py"


def docstring(entry: Entry) -> str:
    """What the method's file says it does, read without importing it."""
    return inspect.cleandoc(ast.get_docstring(ast.parse(entry.source.read_text(encoding="utf-8"))) or "")


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("collections.abc.", "")


def parameters(entry: Entry) -> list[dict[str, Any]]:
    """Name, type, default, range and description of each parameter. Imports the method."""
    fields: Mapping[str, Any] = getattr(entry.load(), "__pydantic_fields__", {})
    rows = []
    for name, field in fields.items():
        bounds = [
            f"{symbol} {getattr(constraint, key)}"
            for constraint in field.metadata
            for key, symbol in BOUNDS.items()
            if getattr(constraint, key, None) is not None
        ]
        rows.append(
            {
                "name": name,
                "type": _type_name(field.annotation),
                "default": None if field.is_required() else field.get_default(call_default_factory=True),
                "range": ", ".join(bounds),
                "description": field.description or "",
            }
        )
    return rows


def facts(entry: Entry) -> dict[str, str]:
    """The card's short fields, as the pages show them."""
    card = entry.card
    settings = None if card.identity is None else ", ".join(f"{k}={v}" for k, v in card.identity.items())
    return {
        "kind": card.kind,
        "guarantee": card.guarantee,
        "baseline": card.baseline,
        "equals its baseline": "at no setting" if settings is None else f"at {settings}" if settings else "always",
        "needs": card.needs,
        "paper": card.paper or "none",
        "source": f"{source_path(entry)} ({entry.distribution})",
    }


def _escape(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    names = list(columns)
    lines = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    return [*lines, *(f"| {' | '.join(map(_escape, row))} |" for row in rows)]


def method_page(entry: Entry, level: int = 1) -> str:
    """The method's page in Markdown; ``level`` is the depth of its heading."""
    card, deeper = entry.card, "#" * (level + 1)
    lines = ["#" * level + f" `{card.id}`", "", f"**{card.title}**", "", docstring(entry), ""]
    lines += [f"- {name}: {value}" for name, value in facts(entry).items()]
    columns = ("name", "type", "default", "range", "description")
    rows = [[row[c] for c in columns] for row in parameters(entry)]
    if rows:
        lines += ["", f"{deeper} Parameters", "", *_table(columns, rows)]
    if card.claims:
        names = ("metric", "value", "against", "on")
        claims = [[claim.get(n, "") for n in names] for claim in card.claims]
        lines += ["", f"{deeper} The paper's claims (its figures, not ours)", "", *_table(names, claims)]
    if card.details:
        lines += ["", f"{deeper} Where details come from", "", *_table(("detail", "source"), card.details.items())]
    return "\n".join(lines) + "\n"


def all_pages(entries: Iterable[Entry]) -> str:
    """One document of all methods, by kind."""
    by_kind: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda e: e.card.id):
        by_kind.setdefault(entry.card.kind, []).append(entry)
    parts = ["# Methods\n\nMade from the cards by `zoo info --all --markdown`; the cards are where to change it.\n"]
    for kind in KINDS:
        if kind in by_kind:
            parts.append(f"## {kind}\n")
            parts += [method_page(entry, level=3) for entry in by_kind[kind]]
    return "\n".join(parts)
