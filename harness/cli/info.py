"""``zoo info``: everything known of one method, suite, task or model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from harness.catalog import pages
from harness.catalog.registry import Entry, catalog, read_catalog
from harness.cli.list_ import model_rows, suite_rows, task_rows
from harness.cli.options import Json
from harness.cli.output import print_json, print_table, print_text, warn
from harness.errors import EnvironmentFailed, UsageError, unknown_name

PARAMETER_COLUMNS = ("name", "type", "default", "range", "description")
CLAIM_COLUMNS = ("metric", "value", "against", "on")


def method_document(entry: Entry) -> dict[str, Any]:
    """The card with its parameters. A method that cannot be imported still shows its card, and the reason."""
    card = asdict(entry.card)
    document = {
        "what": "method",
        **card,
        "claims": [{**claim, "by": "paper"} for claim in entry.card.claims],
        "description": pages.docstring(entry),
        "source": pages.source_path(entry),
        "distribution": entry.distribution,
        "parameters": None,
    }
    try:
        document["parameters"] = pages.parameters(entry)
    except EnvironmentFailed as error:
        warn(str(error))
        document["problem"] = str(error)
    return document


def show_method(entry: Entry, document: dict[str, Any]) -> None:
    """The same document for people."""
    print_text(f"{entry.card.id}: {entry.card.title}\n\n{document['description']}\n")
    facts = pages.facts(entry)
    width = max(map(len, facts))
    print_text("".join(f"  {name:<{width}}  {value}\n" for name, value in facts.items()))
    print_tables(entry, document)


def print_tables(entry: Entry, document: dict[str, Any]) -> None:
    """Parameters, claims and sources of details, where there are any."""
    if document["parameters"]:
        rows = [[row[c] for c in PARAMETER_COLUMNS] for row in document["parameters"]]
        print_table(PARAMETER_COLUMNS, rows, f"Parameters, written {entry.card.id}@name=value")
    if entry.card.claims:
        claims = [[claim.get(c, "") for c in CLAIM_COLUMNS] for claim in entry.card.claims]
        print_table(CLAIM_COLUMNS, claims, "The paper's claims (its figures, not measured here)")
    if entry.card.details:
        print_table(("detail", "source"), list(entry.card.details.items()), "Where details come from")


def find_other(name: str) -> dict[str, Any]:
    """A model, suite or task of this name, or an error that names the nearest of all there is."""
    known = set(catalog())
    for what, rows in (("model", model_rows()), ("suite", suite_rows()), ("task", task_rows())):
        for row in rows:
            if row[what] == name:
                return {"what": what, **row}
        known |= {row[what] for row in rows}
    raise unknown_name("name", name, known, "zoo list shows methods; zoo list suites, tasks or models the rest")


def info_all(markdown: bool, as_json: bool) -> None:
    """All methods in one document."""
    if not markdown and not as_json:
        raise UsageError("--all writes one document: add --markdown or --json")
    for problem in read_catalog().problems:
        warn(problem)
    if as_json:
        print_json({"methods": [method_document(entry) for entry in catalog().values()]})
    else:
        print_text(pages.all_pages(catalog().values()))


def info(
    name: Annotated[str | None, typer.Argument(metavar="ID", help="Method, model, suite or task.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The method's page in Markdown.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All methods in one document.")] = False,
    as_json: Json = False,
) -> None:
    """Show a method's card, its parameters with their ranges, the paper's claims and where details come from."""
    if everything == (name is not None):
        raise UsageError("zoo info takes one ID, or --all; zoo list shows the ids")
    if markdown and as_json:
        raise UsageError("--markdown and --json exclude each other")
    if name is None:
        return info_all(markdown, as_json)
    entry = catalog().get(name)
    if markdown:
        if entry is None:
            raise unknown_name("method", name, catalog(), "--markdown is for methods")
        return print_text(pages.method_page(entry))
    document = find_other(name) if entry is None else method_document(entry)
    if as_json:
        print_json(document)
    elif entry is None:
        print_text("".join(f"{key}: {value}\n" for key, value in document.items()))
    else:
        show_method(entry, document)
