"""Writes leaderboards as text tables, Markdown, CSV or plain data; the same rows and numbers in each."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.records.board import Board, Cell, Row
from harness.records.metrics import metric

SHORT = {
    "speedup_total": "speed-up",
    "speedup_decode": "decode x",
    "speedup_ttft": "TTFT x",
    "speedup_bound": "bound",
    "mean_accepted_tokens": "MAT",
    "plain_step_share": "plain steps",
    "forwards_saved": "forwards saved",
    "kv_kept_fraction": "KV kept",
    "kv_read_fraction": "KV read",
    "kv_bytes_held": "KV held",
    "ttft_p50": "TTFT p50",
    "ttft_p90": "TTFT p90",
    "tpot_p50": "TPOT p50",
    "tpot_p90": "TPOT p90",
    "peak_memory_bytes": "peak mem",
    "mfu_prefill": "MFU",
    "mbu_decode": "MBU",
    "energy_per_token_decode": "J/token",
    "speedup": "speed-up",
    "error_rms": "error",
    "call_p50": "call p50",
    "tokens_per_s": "tok/s",
    "mb_per_s": "MB/s",
    "bytes_per_token": "bytes/token",
    "renyi_efficiency": "Renyi",
    "round_trip_fidelity": "round trip",
    "train_reward_start": "reward before",
    "train_reward_end": "reward after",
    "train_seconds": "train",
    "train_joules": "train energy",
}


def heading(column: str) -> str:
    """A column's short title."""
    task, _, name = column.rpartition(" ")
    return f"{task.removeprefix('zoo_')} {name}" if task else SHORT.get(column, column)


def amount(value: float, unit: str) -> str:
    """A figure in its unit, with three significant digits."""
    if unit == "byte":
        for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return f"{value:.0f} B"
    if unit == "relative":
        return f"{value:.0e}"
    if abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) < 0.001 and value:
        text = f"{value:.1e}"
    else:
        text = f"{value:.3g}"
    return f"{text} {unit}" if unit in ("ms", "s") else text


def cell_text(column: str, cell: Cell | None) -> str:
    """A figure as people read it: with its interval, or with its paired difference where it has one."""
    if cell is None:
        return ""
    unit = metric(column.rsplit(" ", 1)[-1]).unit
    text = amount(cell.value, unit)
    if cell.delta is not None and cell.delta_low is not None and cell.delta_high is not None:
        return f"{text} ({cell.delta:+.3g} [{cell.delta_low:+.2g}, {cell.delta_high:+.2g}])"
    if cell.low is not None and cell.high is not None:
        return f"{text} [{amount(cell.low, unit)}, {amount(cell.high, unit)}]"
    return f"{text} (model)" if cell.source == "model" else text


def table_rows(board: Board) -> tuple[list[str], list[list[str]]]:
    """Headings and text rows of a board. The front is starred; columns that would be empty are left out."""
    several_models = len({r.model for r in board.rows}) > 1
    several_workloads = any(r.workload for r in board.rows)
    status = any(r.status != "ok" for r in board.rows)
    heads = ["", "method", *(["model"] if several_models else []), *(["workload"] if several_workloads else [])]
    heads += [heading(c) for c in board.columns] + (["status"] if status else [])
    rows = []
    for row in board.rows:
        fixed = ["*" if row.on_front else "", row.method]
        fixed += [row.model] if several_models else []
        fixed += [row.workload] if several_workloads else []
        cells = [cell_text(c, row.cells.get(c)) for c in board.columns]
        rows.append([*fixed, *cells, *([row.status if row.status != "ok" else ""] if status else [])])
    return heads, rows


def footnotes(board: Board) -> list[str]:
    """What a reader must know beside the table: failures, busy machines, the papers' own figures."""
    notes = [f"{r.method}: {reason}" for r in board.rows for reason in dict.fromkeys(r.reasons)]
    claimed = {r.method.split("+")[-1].split("@")[0]: r.claims for r in board.rows if r.claims}
    notes += [f"{name}, the paper's own: {text}" for name, text in claimed.items()]
    return list(dict.fromkeys(notes))


def markdown(boards: Sequence[Board]) -> str:
    """All boards as Markdown."""
    parts = []
    for board in boards:
        heads, rows = table_rows(board)
        lines = [f"### {board.kind}", "", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        lines += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]
        lines += ["", *(f"- {note}" for note in footnotes(board))]
        parts.append("\n".join(lines).rstrip())
    return "\n\n".join(parts) + "\n"


def flat_rows(boards: Sequence[Board]) -> list[dict[str, Any]]:
    """One dictionary a figure: what CSV holds."""
    return [
        {"kind": b.kind, **_who(row), "column": name, "unit": metric(name.rsplit(" ", 1)[-1]).unit, **asdict(cell)}
        for b in boards
        for row in b.rows
        for name, cell in row.cells.items()
    ]


def _who(row: Row) -> dict[str, Any]:
    names = ("method", "model", "workload", "baseline", "machine", "status", "on_front")
    return {name: getattr(row, name) for name in names}


def csv_text(boards: Sequence[Board]) -> str:
    """All figures as CSV, one a line."""
    rows = flat_rows(boards)
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue()


def as_data(boards: Sequence[Board]) -> list[dict[str, Any]]:
    """Boards as plain data: what ``--json`` prints."""
    return [asdict(board) for board in boards]
