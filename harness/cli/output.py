"""What verbs print: a table for people or one JSON document for programs, from the same rows."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 100_000  # into a file or pipe nothing is cut


def console() -> Console:
    """A rich console on stdout that takes text as it is (no markup) and cuts nothing outside a terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
    return Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)


def cell(value: Any) -> str:
    """A value as a table shows it; None is empty, a float has four significant digits."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """A table on stdout. Columns whose every value is a number stand to the right."""
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        title_style="bold",
        show_edge=False,
        pad_edge=False,
    )
    for index, name in enumerate(columns):
        values = [row[index] for row in rows if row[index] is not None]
        number = bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(cell, row))
    out = console()
    with out.capture() as rendered:  # written by us: rich itself leaves with 1 where the reader of a pipe has gone
        if title:
            out.print()
        out.print(table)
    print_text(rendered.get())


def _strict(value: Any) -> Any:
    """JSON has neither NaN nor infinity: what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(_strict(document), indent=2, ensure_ascii=False, default=str) + "\n")


def print_text(text: str) -> None:
    """Text on stdout, as it is."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def warn(message: str) -> None:
    """One line on stderr."""
    print(f"zoo: warning: {message}", file=sys.stderr)


def progress(message: str) -> None:
    """One line on stderr about what is going on."""
    print(message, file=sys.stderr, flush=True)


def print_panels(intro: str, panels: Mapping[str, Sequence[tuple[str, str]]], outro: str) -> None:
    """Help: two-column panels under their titles. Uses the light half of rich, as help must open at once."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table

    out = Console(file=sys.stdout, markup=False, highlight=False)
    out.print(intro + "\n")
    width = max(len(name) for rows in panels.values() for name, _ in rows)
    for title, rows in panels.items():
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold cyan", min_width=width, no_wrap=True)
        table.add_column()
        for name, text in rows:
            table.add_row(name, text)
        out.print(Panel(table, title=title, title_align="left", border_style="dim"))
    out.print(outro)
