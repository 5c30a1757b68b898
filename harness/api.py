"""The verbs of the command line for Python: the same plans and records, given back as polars frames.

Errors are those of :mod:`harness.errors`; what a trial does wrong is no error but a row with its status and reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from harness.records.board import Board
    from harness.run.plan import Scope

Place = str | Path


def run_suite(
    suite: str | Mapping[str, Any] = "smoke",
    scope: Scope | None = None,
    results: Place = "results",
    rerun: bool = False,
) -> pl.DataFrame:
    """Run a suite into records and return its figures: ``measurements`` joined with their ``trials``.

    ``suite`` is a name, the path of a YAML file, or the tables of one. ``scope`` says where and what of it runs
    (default: everything, on the first GPU or the CPU, one thread). Trials recorded under ``results`` before are not run
    again unless ``rerun``, but are part of the frame. A trial without figures is one row whose ``metric`` is null.
    """
    from harness.records.store import read_results
    from harness.run.plan import Scope
    from harness.run.session import execute_plan, make_plan
    from harness.run.suite import load_suite, parse_suite

    chosen = load_suite(suite) if isinstance(suite, str) else parse_suite(dict(suite), "given as tables")
    place, scope = Path(results), scope or Scope()
    everything = {trial["trial_id"] for trial in make_plan(chosen, scope, place, rerun=True).trials}
    execute_plan(make_plan(chosen, scope, place, rerun), place, lambda event: None)
    tables = read_results(place)
    trials = tables["trials"]
    wanted = trials.filter(trials["trial_id"].is_in(list(everything)))
    return wanted.join(tables["measurements"].drop("baseline", "run"), on="trial_id", how="left")


def run_methods(
    methods: Sequence[str], scope: Scope | None = None, results: Place = "results", rerun: bool = False, **entry: Any
) -> pl.DataFrame:
    """Run methods, as :func:`run_suite` does. ``entry`` holds fields of a suite's entry: ``tasks``, ``models``,
    ``limit``, ``decode`` (a list of tables: ``{"prompts": "chat", "new_tokens": 48}``), ``workloads``, ``probes``."""
    return run_suite({"name": "methods", "entries": [{"methods": list(methods), **entry}]}, scope, results, rerun)


def leaderboard(kind: str, results: Place = "results", suite: str = "", sort: str = "") -> pl.DataFrame:
    """One kind's leaderboard, ranked: a row for each method, model and workload.

    Each figure is a column under its full name, with ``<name> low`` and ``<name> high`` where it has an interval, and
    ``<name> delta`` with its own interval where it was compared with the baseline document by document.
    """
    from harness.errors import unknown_name
    from harness.records.leaderboard import read_boards
    from harness.records.store import recorded_values

    boards = read_boards(Path(results), kind, suite, sort)
    if not boards:
        raise unknown_name("kind among the records", kind, recorded_values(Path(results), "method_kind"))
    if sort and boards[0].sorted_by != sort:
        raise unknown_name("column", sort, boards[0].columns)
    return _board_frame(boards[0])


def _board_frame(board: Board) -> pl.DataFrame:
    """A board as a frame; columns in which no row has a value are left out."""
    import polars as pl

    rows = []
    for row in board.rows:
        who = {n: getattr(row, n) for n in ("method", "model", "workload", "baseline", "status", "on_front")}
        cells: dict[str, float | None] = {}
        for column in board.columns:
            found = asdict(row.cells[column]) if column in row.cells else {}
            for part in ("value", "low", "high", "delta", "delta_low", "delta_high"):
                cells[column if part == "value" else f"{column} {part}"] = found.get(part)
        rows.append({**who, **cells, "reasons": "; ".join(row.reasons)})
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return frame.select(column.name for column in frame if column.null_count() < len(frame))


def list_methods(kind: str = "") -> pl.DataFrame:
    """The cards of all installed methods, or of one kind, by id. Imports no method."""
    import polars as pl

    from harness.catalog.card import KINDS
    from harness.catalog.registry import catalog
    from harness.errors import unknown_name

    if kind and kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    names = ("id", "kind", "title", "guarantee", "baseline", "needs", "paper")
    schema = dict.fromkeys((*names, "distribution"), pl.String)
    entries = [entry for _, entry in sorted(catalog().items()) if kind in ("", entry.card.kind)]
    rows = [{**{n: getattr(e.card, n) for n in names}, "distribution": e.distribution} for e in entries]
    return pl.DataFrame(rows, schema=schema)


def check(method: str, model: str = "tiny-random", device: str = "auto", dtype: str | None = None) -> pl.DataFrame:
    """A method's invariants on a model, run now: ``name``, ``outcome`` (passed, failed, raised), ``reason``,
    ``seconds``."""
    import polars as pl

    from harness.catalog.spec import MethodSpec
    from harness.kinds.checking import check_subject
    from harness.subjects.load import load_subject

    results = check_subject(MethodSpec.parse(method), load_subject(model, device, dtype))
    return pl.DataFrame([asdict(result) for result in results])
