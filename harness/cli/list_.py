"""``zoo list``: what there is, read without importing any of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from harness.catalog.card import KINDS
from harness.catalog.registry import read_catalog
from harness.cli.options import Json
from harness.cli.output import print_json, print_table, warn
from harness.errors import UsageError, unknown_name
from harness.subjects.catalog import MODELS

Rows = list[dict[str, Any]]


def method_rows(kind: str | None = None) -> Rows:
    """The cards, by kind and id."""
    if kind is not None and kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    entries = sorted(read_catalog().entries.values(), key=lambda e: (KINDS.index(e.card.kind), e.card.id))
    return [
        {
            "id": entry.card.id,
            "kind": entry.card.kind,
            "guarantee": entry.card.guarantee,
            "baseline": entry.card.baseline,
            "title": entry.card.title,
            "paper": entry.card.paper,
            "from": entry.distribution,
        }
        for entry in entries
        if kind in (None, entry.card.kind)
    ]


def suite_rows() -> Rows:
    """The suites that come with the zoo. One that cannot be read is a warning."""
    from harness.run.suite import load_suite, suite_names

    rows: Rows = []
    for name in suite_names():
        try:
            rows.append({"suite": name, "description": " ".join(load_suite(name).description.split())})
        except UsageError as error:
            warn(str(error))
    return rows


def task_rows() -> Rows:
    """The zoo's own tasks and groups; lm-eval's are listed by ``zoo lm-eval ls tasks``."""
    from tasks import our_groups, our_tasks

    kinds = our_tasks() | {name: f"group of {len(members)}" for name, members in our_groups().items()}
    return [{"task": name, "output_type": kind} for name, kind in sorted(kinds.items())]


def model_rows() -> Rows:
    """The catalog of models."""
    return [
        {"model": entry.name, "dtype": entry.dtype, "licence": entry.licence, "title": entry.title}
        for entry in MODELS.values()
    ]


OTHERS: dict[str, Callable[[], Rows]] = {"suites": suite_rows, "tasks": task_rows, "models": model_rows}


def list_(
    what: Annotated[str, typer.Argument(help="methods, suites, tasks or models.")] = "methods",
    kind: Annotated[str | None, typer.Option("--kind", help="Methods of this kind only.")] = None,
    as_json: Json = False,
) -> None:
    """List methods, suites, tasks or models.

    Cards are read from their source, so a broken package is a warning and harms nobody else.
    """
    if what not in ("methods", *OTHERS):
        raise unknown_name("argument", what, ("methods", *OTHERS))
    if what != "methods" and kind is not None:
        raise UsageError(f"--kind chooses among methods; {what} have no kind")
    rows = OTHERS[what]() if what in OTHERS else method_rows(kind)
    problems = read_catalog().problems if what == "methods" else ()
    for problem in problems:
        warn(problem)
    if as_json:
        print_json({what: rows, "problems": list(problems)})
    elif rows:
        shown = [name for name in rows[0] if name not in ("paper", "from")]
        print_table(shown, [[row[name] for name in shown] for row in rows])
    else:
        warn(f"no {what}" + (f" of kind {kind}" if kind else ""))
