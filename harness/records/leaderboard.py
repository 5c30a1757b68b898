"""Reads leaderboards out of records: one table a kind, one row a method, model and workload.

A row joins what lm-eval scored, what the clocks said and what was counted. Speed is the ratio to the baseline from
interleaved pairs; quality has beside it the difference to the baseline on the same documents.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.catalog.registry import catalog, kinds_compared
from harness.records.board import Board, Cell, Row, direction, mark_front
from harness.records.differences import baseline_differences
from harness.records.metrics import metric
from harness.records.schema import AS_BASELINE, OK
from harness.records.seeds import join_seeds
from harness.records.store import SETTING, newest_of_settings, read_newest

if TYPE_CHECKING:
    import polars as pl

COST_COLUMNS: dict[str, tuple[str, ...]] = {
    "pruning": ("speedup_decode", "speedup_ttft", "kv_kept_fraction", "kv_read_fraction", "kv_bytes_held"),
    "speculative": ("speedup_total", "speedup_decode", "speedup_bound", "mean_accepted_tokens", "plain_step_share"),
    "decoding": ("speedup_total", "tokens_forwarded_per_token", "large_model_share", "active_parameters_per_token"),
    "kernel": ("speedup", "error_rms", "call_p50", "tokens_per_s"),
    "tokenizer": ("speedup", "mb_per_s", "bytes_per_token", "fertility", "renyi_efficiency", "round_trip_fidelity"),
    "objective": (
        *("pass_at_1", "pass_at_8", "greedy_accuracy", "held_out_reward", "train_reward_start", "train_reward_end"),
        *("speedup", "updates_per_s", "generated_tokens", "train_seconds", "train_joules"),
    ),
    "architecture": ("speedup_decode", "held_out_accuracy", "bits_per_byte", "kv_slots_per_token", "train_seconds"),
}
GENERATION_COLUMNS = (
    "ttft_p50",
    "ttft_p90",
    "tpot_p50",
    "tpot_p90",
    "peak_memory_bytes",
    "mfu_prefill",
    "mbu_decode",
    "energy_per_token_decode",
    "energy_per_trained_token",
)
QUALITY_METRICS = ("acc", "acc_norm", "exact_match", "choice_margin", "bits_per_byte")


def read_boards(results: Path, kind: str = "", suite: str = "", sort: str = "") -> list[Board]:
    """Boards of all kinds (or one) from the records under ``results``, of which only the rows that count are read."""
    import polars as pl

    names = ("baseline", "status", "reason", "suite", "environment", "reproduce", "machine")
    text = dict.fromkeys(("trial_id", "metric", "phase", "source"), pl.String)
    schemas = {
        "trials": {**dict.fromkeys(("trial_id", "started", *SETTING, *names), pl.String), "seed": pl.Int64},
        "measurements": {**text, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "n": pl.Int64},
        "samples": {**dict.fromkeys(("trial_id", "side", "name"), pl.String), "unit": pl.Int64, "value": pl.Float64},
    }
    tables = read_newest(results, schemas, method_kind=kinds_compared(kind), suite=suite)
    return build_boards(tables, kind, suite, sort)


def build_boards(tables: Mapping[str, pl.DataFrame], kind: str = "", suite: str = "", sort: str = "") -> list[Board]:
    """Boards of all kinds (or one) from stored tables. ``suite`` keeps the trials of one suite.

    Of several trials of one setting the newest counts: sources change, so a setting has a new trial every night.
    """
    wanted = {"suite": suite} if suite else {}
    chosen = newest_of_settings(tables["trials"].lazy().filter(**wanted)).collect()
    trials = chosen.to_dicts()
    figures: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in tables["measurements"].join(chosen, on="trial_id", how="semi", maintain_order="left").to_dicts():
        figures[row["trial_id"]].append(row)
    differences = baseline_differences(tables, trials)
    trials = join_seeds(trials, figures, differences)
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for trial in trials:
        by_kind[trial["method_kind"]].append(trial)
    kinds = [kind] if kind else sorted(by_kind)
    return [_board(k, by_kind[k], figures, differences, sort) for k in kinds if by_kind.get(k)]


def _board(
    kind: str,
    trials: Sequence[dict[str, Any]],
    figures: Mapping[str, list[dict[str, Any]]],
    differences: Mapping[tuple[str, str], tuple[float, float | None, float | None]],
    sort: str,
) -> Board:
    rows: dict[tuple[str, str, str], Row] = {}
    shared: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for trial in trials:
        if trial["kind"] in ("cost", "workload"):
            for workload in _workloads_of(trial, figures[trial["trial_id"]]):
                row = rows.setdefault((trial["method"], trial["model"], workload), _new_row(trial, workload))
                _note(row, trial)
                for figure in figures[trial["trial_id"]]:
                    if trial["kind"] == "cost" or figure["phase"] == workload:
                        row.cells[figure["metric"]] = _cell(figure)
        else:
            shared[trial["method"], trial["model"]].append(trial)
    for (method, model), several in shared.items():
        targets = [r for (m, o, _), r in rows.items() if (m, o) == (method, model)]
        if not targets:
            targets = [rows.setdefault((method, model, ""), _new_row(several[0], ""))]
        for trial in several:
            _spread(trial, targets, figures[trial["trial_id"]], differences)
    columns = _columns(kind, list(rows.values()))
    board = Board(kind, columns, list(rows.values()), sort if sort in columns else _default_sort(kind, columns))
    mark_front(board)
    board.rows.sort(key=lambda r: _sort_key(r, board.sorted_by))
    return board


def _workloads_of(trial: dict[str, Any], figures: Sequence[dict[str, Any]]) -> list[str]:
    if trial["kind"] == "cost":
        return [trial["target"]]
    return list(dict.fromkeys(f["phase"] for f in figures)) or [""]


def _spread(
    trial: dict[str, Any],
    targets: Sequence[Row],
    figures: Sequence[dict[str, Any]],
    differences: Mapping[tuple[str, str], tuple[float, float | None, float | None]],
) -> None:
    """Put a quality or probe trial's figures into every row of its method and model."""
    for row in targets:
        _note(row, trial)
        for figure in figures:
            quality = trial["kind"] == "quality"
            if quality and figure["metric"] not in QUALITY_METRICS:
                continue
            name = f"{figure['phase']} {figure['metric']}" if quality else figure["metric"]
            if not quality and name in row.cells:
                continue  # a workload's own figure, from pairs, is the better one
            row.cells[name] = _cell(figure, differences.get((trial["trial_id"], figure["metric"])))


def _new_row(trial: dict[str, Any], workload: str) -> Row:
    method_id = trial["method"].split("+")[-1].split("@")[0]
    entry = catalog().get(method_id)
    claims = "; ".join(
        f"{c['value']}{metric(c['metric']).unit} {c['metric']} against {c['against']} on {c['on']}"
        for c in (entry.card.claims if entry else ())
    )
    return Row(trial["method"], trial["model"], workload, trial["baseline"], trial["machine"], claims=claims)


def _note(row: Row, trial: dict[str, Any]) -> None:
    if trial["status"] not in (OK, AS_BASELINE):
        row.status = trial["status"]
        row.reasons.append(f"{trial['kind']} {trial['target']}: {trial['reason']}")
    busy = json.loads(trial["environment"]).get("busy") if trial["environment"] else None
    if busy and trial["kind"] in ("cost", "workload"):
        row.reasons.append(f"measured while busy: {busy}")
    if "seeds" in trial:
        row.reasons.append(f"{trial['kind']} {trial['target']}: means over {trial['seeds']} seeds")
    if trial["reproduce"]:
        row.reproduce.append(trial["reproduce"])


def _cell(figure: dict[str, Any], difference: tuple[float, float | None, float | None] | None = None) -> Cell:
    base = (figure["value"], figure["low"], figure["high"], figure["n"], figure["source"])
    return Cell(*base, *(difference or (None, None, None)))


def _columns(kind: str, rows: Sequence[Row]) -> list[str]:
    present = {name for row in rows for name in row.cells}
    known = [c for c in (*COST_COLUMNS.get(kind, ()), *GENERATION_COLUMNS) if c in present]
    quality = sorted(name for name in present if " " in name)
    return [*quality, *known]


def _default_sort(kind: str, columns: Sequence[str]) -> str:
    wanted = [c for c in COST_COLUMNS.get(kind, ()) if c in columns]
    return wanted[0] if wanted else (columns[0] if columns else "")


def _sort_key(row: Row, column: str) -> tuple[int, float, str]:
    cell = row.cells.get(column)
    if cell is None:
        return (1, 0.0, row.method)
    return (0, cell.value if direction(column) == "lower" else -cell.value, row.method)
