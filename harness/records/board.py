"""What a leaderboard is made of, and which of its rows no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.records.metrics import metric
from harness.records.schema import OK


@dataclass(frozen=True)
class Cell:
    """One figure with its interval, sample size and source; for quality also the paired difference to the baseline."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    source: str = ""
    delta: float | None = None
    delta_low: float | None = None
    delta_high: float | None = None


@dataclass
class Row:
    """One line of a leaderboard."""

    method: str
    model: str
    workload: str
    baseline: str
    machine: str
    cells: dict[str, Cell] = field(default_factory=dict)
    status: str = OK
    reasons: list[str] = field(default_factory=list)
    claims: str = ""
    on_front: bool = False
    reproduce: list[str] = field(default_factory=list)


@dataclass
class Board:
    """The leaderboard of one kind. ``columns`` are the cells' names in order; ``sorted_by`` is one of them."""

    kind: str
    columns: list[str]
    rows: list[Row]
    sorted_by: str


def direction(column: str) -> str:
    """Whether more or less of a column is better."""
    return metric(column.rsplit(" ", 1)[-1]).direction


def mark_front(board: Board) -> None:
    """Mark the rows that no other row of the same model and workload beats beyond noise.

    A row is beaten when another is better beyond both intervals in one objective and not worse beyond them in any.
    Objectives: the kind's first speed column, the first quality column, and bytes held where there are any.
    """
    quality = [c for c in board.columns if " " in c]
    objectives = [*quality[:1], board.sorted_by, *(c for c in ("kv_bytes_held",) if c in board.columns)]
    objectives = list(dict.fromkeys(o for o in objectives if o and direction(o) != "none"))
    for row in board.rows:
        rivals = [r for r in board.rows if r is not row and (r.model, r.workload) == (row.model, row.workload)]
        measured = [o for o in objectives if o in row.cells]
        row.on_front = bool(measured) and row.status == OK and not any(_beats(r, row, measured) for r in rivals)


def _beats(one: Row, other: Row, objectives: Sequence[str]) -> bool:
    signs = [_order(one.cells.get(o), other.cells[o], direction(o)) for o in objectives]
    return one.status == OK and max(signs) > 0 and min(signs) >= 0


def _order(one: Cell | None, other: Cell, better: str) -> int:
    """1 where ``one`` is better beyond both intervals, -1 where worse (or missing), 0 where they overlap."""
    if one is None:
        return -1
    low, high = _bounds(one)
    other_low, other_high = _bounds(other)
    above, below = low > other_high, high < other_low
    if better == "lower":
        above, below = below, above
    return int(above) - int(below)


def _bounds(cell: Cell) -> tuple[float, float]:
    """The interval, or the value twice where there is none."""
    if cell.low is None or cell.high is None:
        return cell.value, cell.value
    return cell.low, cell.high
