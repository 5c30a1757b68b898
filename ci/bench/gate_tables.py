"""Markdown tables of the gate's simulation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Row = dict[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(share: float, digits: int = 2) -> str:
    """A share in percent."""
    return f"{share:.{digits}%}"


def innocent(rows: list[Row]) -> str:
    """Alarms, passes and blocks of the gate, one line a cell, budgets side by side."""
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    by_cell = grouped(rows, "cell")
    names = ("alarms", "95% bound", "all pass", "undecided", "blocks")
    head = ["cell", *(f"{budget}: {name}" for budget in budgets for name in names)]
    lines = [
        [cell, *(text for row in found for text in (f"{row['alarms']} / {row['gates']}", *_gate(row)))]
        for cell, found in by_cell.items()
    ]
    return table(head, lines) + "\n\n" + others([row for row in rows if row["budget"] == budgets[0]])


def _gate(row: Row) -> tuple[str, ...]:
    return (
        percent(row["upper"]),
        percent(row["pass"], 1),
        percent(row["inconclusive"]),
        f"{row['blocks']:.0f}",
    )


def others(rows: list[Row]) -> str:
    """What other tools' rules say of the same samples, beside the gate."""
    rules = list(rows[0]["others"])
    head = ["cell", "zoo gate", *(f"{r}: gate" for r in rules), *(f"{r}: comparison" for r in rules)]
    lines = [
        [
            row["cell"],
            percent(row["alarms"] / row["gates"]),
            *(percent(row["others"][r]["gate"], 1) for r in rules),
            *(f"{row['others'][r]['comparison']:.3f}" for r in rules),
        ]
        for row in rows
    ]
    return "Share of innocent gates, and of single comparisons, that raise an alarm:\n\n" + table(head, lines)


def never_pass(rows: list[Row]) -> str:
    """Alarms where no look lets a comparison pass."""
    lines = [
        [
            row["shape"],
            f"{row['alarms']} / {row['gates']}",
            percent(row["alarms"] / row["gates"]),
            percent(row["upper"]),
        ]
        for row in rows
    ]
    return table(["shape", "alarms", "share", "95% bound"], lines)


def power(rows: list[Row]) -> str:
    """Detection and false passes by shape: the worst of the between-run levels, which cancel."""
    effects = list(dict.fromkeys(row["effect"] for row in rows))
    found: dict[tuple[str, str, float], dict[float, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["budget"], row["shape"], row["floor"]][row["effect"]].append(row)
    lines = []
    for (budget, shape, floor), by_effect in found.items():
        caught = [percent(min(r["regression"] for r in by_effect[e]), 1) for e in effects]
        passed = max(r["pass"] for r in by_effect[effects[0]])
        blocks = [f"{sum(r['blocks'] for r in by_effect[e]) / len(by_effect[e]):.0f}" for e in effects]
        lines.append([f"{budget}, {shape}, floor {floor:.1%}", *caught, percent(passed, 1), " / ".join(blocks)])
    head = ["budget, shape, floor", *(f"+{e:.0%}" for e in effects), f"false pass at +{effects[0]:.0%}", "mean blocks"]
    return table(head, sorted(lines, key=lambda line: line[0].startswith("10 s")))


def bounds(rows: list[Row]) -> str:
    """Error rates with 95 % intervals, and mean half widths in percent."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    parts = []
    for level, of_level in grouped(rows, "level").items():
        lines = []
        for shape, of_shape in grouped(of_level, "shape").items():
            for blocks, of_n in grouped(of_shape, "blocks").items():
                lines.append([f"{shape}, n = {blocks}", *(_bound(row) for row in of_n)])
        note = "error rate of one side in % (95 % interval); mean half width in %"
        parts.append(f"Level {level:.2%}: {note}\n\n" + table(["blocks", *methods], lines))
    return "\n\n".join(parts)


def _bound(row: Row) -> str:
    digits = 1 if row["level"] >= 0.01 else 3
    rate, low, high = (f"{100 * row[key]:.{digits}f}" for key in ("rate", "rate_low", "rate_high"))
    width = f"{100 * row['half_width']:.2f}" if row["half_width"] < float("inf") else "no bound"
    return f"{rate} ({low}-{high}); {width}"


def two_processes(rows: list[Row]) -> str:
    """Alarms of gates whose sides run in two processes."""
    names = list(rows[0]["shares"])
    lines = [
        [
            f"{row['side_sd']:.1%}, {row['effect']:+.0%}",
            percent(row["mean_floor"]),
            percent(row["refused"], 1),
            *(
                f"{percent(row['shares'][name]['gate'])}; {percent(row['shares'][name]['comparison'])}"
                for name in names
            ),
        ]
        for row in rows
    ]
    return table(
        ["sd of a side, true change", "mean floor", "refused", *(f"{n}: gate; comparison" for n in names)], lines
    )


def grouped(rows: Iterable[Row], key: str) -> dict[Any, list[Row]]:
    """Rows by one of their values, in order."""
    found: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[key]].append(row)
    return found


TITLES = {
    "innocent": "Innocent gates: margin 2 %, floor 0",
    "never_pass": "Innocent gates that may not pass: all looks of 300 blocks",
    "power": "Share of guilty comparisons called a regression: margin 2 %, the worst of the between-run levels",
    "bounds": "Bounds on the same blocks",
    "two_processes": "Sides in two processes: noise all, margin 5 %, 60 s",
}
WRITERS: dict[str, Callable[[list[Row]], str]] = {
    "innocent": innocent,
    "never_pass": never_pass,
    "power": power,
    "bounds": bounds,
    "two_processes": two_processes,
}


def write_tables(found: dict[str, list[Row]]) -> str:
    """All tables with their titles."""
    return "\n\n".join(f"## {TITLES[part]}\n\n{WRITERS[part](rows)}" for part, rows in found.items()) + "\n"
