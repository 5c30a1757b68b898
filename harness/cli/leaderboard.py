"""`zoo leaderboard`: what was measured, ranked by kind."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Json, OutputPath

if TYPE_CHECKING:
    from harness.records.board import Board


class Format(StrEnum):
    """How a leaderboard is written."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"


def leaderboard(
    output_path: OutputPath = None,
    kind: Annotated[str, typer.Option("--kind", help="One kind only.")] = "",
    suite: Annotated[str, typer.Option("--suite", help="Trials of one suite only.")] = "",
    sort: Annotated[str, typer.Option("--sort", help="Column to rank by.")] = "",
    front: Annotated[bool, typer.Option("--front", help="Only rows that no other beats beyond noise.")] = False,
    format_: Annotated[Format, typer.Option("--format", help="table, markdown, csv or json.")] = Format.table,
    json_: Json = False,
) -> None:
    """Rank what was measured, by kind; a star marks rows that no other beats beyond noise."""
    show(output_path or Path("results"), "json" if json_ else format_.value, kind, suite, sort, front)


def show(
    results: Path, format_: str = "table", kind: str = "", suite: str = "", sort: str = "", front: bool = False
) -> None:
    """Read the records under ``results`` and print their boards."""
    from harness.catalog.card import KINDS
    from harness.cli.output import print_json, print_text
    from harness.errors import UsageError, unknown_name
    from harness.records.leaderboard import read_boards
    from harness.records.render import as_data, csv_text, markdown
    from harness.records.store import recorded_values

    if kind and kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    boards = read_boards(results, kind, suite, sort)
    if not boards and kind and kind not in (kinds := recorded_values(results, "method_kind")):
        raise unknown_name("kind among the records", kind, kinds)
    if not boards:
        there = ", ".join(recorded_values(results, "suite"))
        raise UsageError(f"no trial of suite {suite!r} under {results}; suites there: {there}")
    if sort and not any(board.sorted_by == sort for board in boards):
        raise unknown_name("column", sort, {c for board in boards for c in board.columns})
    for board in boards if front else ():
        board.rows = [row for row in board.rows if row.on_front]
    if format_ == "json":
        print_json(as_data(boards))
    elif format_ == "csv":
        print_text(csv_text(boards))
    elif format_ == "markdown":
        print_text(markdown(boards))
    else:
        for board in boards:
            _print_board(board)


def _print_board(board: Board) -> None:
    from harness.cli.output import console, print_table, print_text
    from harness.records.render import footnotes, heading, table_rows

    left_out = _fit(board, console().width)
    heads, rows = table_rows(board)
    machines = ", ".join(sorted({r.machine for r in board.rows if r.machine}))
    print_table(heads, rows, f"{board.kind}, ranked by {heading(board.sorted_by)} (machine {machines})")
    for note in footnotes(board):
        print_text(f"  {note}")
    if left_out:
        print_text(f"  left out for want of width: {', '.join(left_out)} (--format markdown shows all)")


def _fit(board: Board, width: int) -> list[str]:
    """Leave columns out, the last first, until the table fits the terminal; the column it is ranked by stays."""
    from harness.records.render import heading, table_rows

    left_out: list[str] = []
    while len(board.columns) > 2:
        heads, rows = table_rows(board)
        needed = sum(max(map(len, column)) + 3 for column in zip(heads, *rows, strict=True))
        if needed <= width:
            break
        last = next(name for name in reversed(board.columns) if name != board.sorted_by)
        board.columns.remove(last)
        left_out.insert(0, heading(last))
    return left_out
