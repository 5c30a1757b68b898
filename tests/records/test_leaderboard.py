"""Leaderboards from made-up tables: joining, paired differences, ranking, the front, failures as rows, formats."""

import csv
import io
import json
from dataclasses import replace

import polars as pl
import pytest

from harness.records.board import Cell, _order
from harness.records.leaderboard import build_boards, read_boards
from harness.records.metrics import dictionary_page, metrics
from harness.records.render import amount, as_data, cell_text, csv_text, footnotes, markdown, table_rows
from harness.records.schema import (
    AS_BASELINE,
    FAILED,
    OK,
    MeasurementRow,
    TrialRecord,
    measurement_frame,
    sample_frame,
    trial_frame,
)
from harness.records.store import RunFolder, read_results
from harness.stats.intervals import mean_interval


def record(method, kind, target, figures, status=OK, reason="", documents=(), suite="unit", **changes):
    trial = {
        "trial_id": f"{method}-{kind}-{target}",
        "kind": kind,
        "method_kind": "pruning",
        "method": method,
        "baseline": "kv_full",
        "model": "m",
        "target": target,
        "dtype": None,
        "device": "cpu",
        "options": {},
        "threads": 1,
        "seed": 0,
        "suite": suite,
        "reproduce": f"zoo run --method {method}",
        **changes,
    }
    rows = [MeasurementRow(metric=m, value=v, low=lo, high=hi, n=5, phase=p) for m, v, lo, hi, p in figures]
    samples = [{"side": "document", "unit": i, "name": "acc", "value": float(v)} for i, v in enumerate(documents)]
    return TrialRecord(trial=trial, status=status, reason=reason, measurements=rows, samples=samples)


def tables(records):
    frames = {"trials": trial_frame, "measurements": measurement_frame, "samples": sample_frame}
    return {name: pl.concat([make(r) for r in records], how="diagonal_relaxed") for name, make in frames.items()}


def speed(value, low, high, held):
    return [("speedup_decode", value, low, high, ""), ("kv_bytes_held", held, None, None, "")]


@pytest.fixture
def records():
    return [
        record("kv_full", "quality", "t", [("acc", 0.75, 0.5, 1.0, "t")], documents=[1, 1, 1, 0]),
        record("kv_full", "cost", "chat", speed(1.0, 0.98, 1.02, 2048.0)),
        record("kv_streaming", "quality", "t", [("acc", 0.25, 0.0, 0.5, "t")], documents=[1, 0, 0, 0]),
        record("kv_streaming", "cost", "chat", speed(1.5, 1.4, 1.6, 1024.0)),
        record("kv_snapkv", "quality", "t", [], status=FAILED, reason="RuntimeError: boom"),
        record("kv_snapkv", "cost", "chat", [], status=AS_BASELINE),
    ]


def test_a_row_joins_quality_and_cost(records):
    (board,) = build_boards(tables(records))
    row = next(r for r in board.rows if r.method == "kv_streaming")
    assert set(row.cells) == {"t acc", "speedup_decode", "kv_bytes_held"}
    assert board.columns == ["t acc", "speedup_decode", "kv_bytes_held"]
    assert row.workload == "chat"


def test_quality_carries_the_paired_difference(records):
    (board,) = build_boards(tables(records))
    cells = {r.method: r.cells.get("t acc") for r in board.rows}
    assert cells["kv_streaming"].delta == pytest.approx(-0.5)
    assert cells["kv_streaming"].delta_low < -0.5 < cells["kv_streaming"].delta_high
    assert cells["kv_full"].delta is None


def test_ranked_by_the_kinds_speed_and_failures_last(records):
    (board,) = build_boards(tables(records))
    assert [r.method for r in board.rows] == ["kv_streaming", "kv_full", "kv_snapkv"]
    (by_memory,) = build_boards(tables(records), sort="kv_bytes_held")
    assert [r.method for r in by_memory.rows] == ["kv_streaming", "kv_full", "kv_snapkv"]


def test_a_probe_does_not_replace_a_workloads_own_figure(records):
    probe = record(
        "kv_streaming", "probe", "all", [("speedup_decode", 9.0, None, None, ""), ("mfu_prefill", 0.5, None, None, "")]
    )
    (board,) = build_boards(tables([*records, probe]))
    row = next(r for r in board.rows if r.method == "kv_streaming")
    assert row.cells["speedup_decode"].value == 1.5 and row.cells["mfu_prefill"].value == 0.5


def test_a_failure_is_a_row_with_its_reason(records):
    (board,) = build_boards(tables(records))
    row = next(r for r in board.rows if r.method == "kv_snapkv")
    assert row.status == FAILED
    assert any("boom" in note for note in footnotes(board))
    heads, rows = table_rows(board)
    assert heads[-1] == "status" and rows[-1][-1] == FAILED


def test_one_suite_only(records):
    other = record("kv_random", "cost", "chat", speed(1, 1, 1, 1.0), suite="other")
    assert len(build_boards(tables([*records, other]), suite="unit")[0].rows) == 3
    assert build_boards(tables(records), suite="nothing") == []


def stored(results, name, records, close=True):
    run = RunFolder.create(results, name, {})
    for one in records:
        one.trial["trial_id"] = f"{name}-{one.trial['trial_id']}"
        one.started = name
        run.store(one)
    if close:
        run.close()
    return run


def test_boards_read_from_records_are_those_of_the_whole_tables(records, tmp_path):
    stored(tmp_path, "1", records)
    stored(tmp_path, "2", [record("kv_full", "cost", "copy", speed(1.0, 0.9, 1.1, 512.0), suite="other")], close=False)
    for choice in ({}, {"kind": "pruning"}, {"suite": "other"}, {"sort": "kv_bytes_held"}):
        assert as_data(read_boards(tmp_path, **choice)) == as_data(build_boards(read_results(tmp_path), **choice))
    assert len(read_boards(tmp_path)[0].rows) == 4 and len(read_boards(tmp_path, suite="other")[0].rows) == 1
    assert read_boards(tmp_path, kind="kernel") == []


def test_a_board_of_one_kind_is_compared_with_a_baseline_of_another(tmp_path):
    plain = record(
        "ar", "quality", "t", [("acc", 0.75, 0.5, 1.0, "t")], documents=[1, 1, 1, 0], method_kind="speculative"
    )
    routed = record(
        "r2r",
        "quality",
        "t",
        [("acc", 0.5, 0.2, 0.8, "t")],
        documents=[1, 1, 0, 0],
        method_kind="decoding",
        baseline="ar",
    )
    stored(tmp_path, "1", [plain, routed])
    (board,) = read_boards(tmp_path, kind="decoding")
    assert [r.method for r in board.rows] == ["r2r"] and board.rows[0].cells["t acc"].delta == pytest.approx(-0.25)


def test_the_newest_trial_of_a_setting_counts(records, tmp_path):
    failed = record("kv_streaming", "cost", "chat", [], status=FAILED, reason="RuntimeError: once")
    stored(tmp_path, "1", [failed, record("kv_full", "cost", "chat", speed(7.0, 6.0, 8.0, 1.0))])
    stored(tmp_path, "2", records)
    for boards in (read_boards(tmp_path), build_boards(read_results(tmp_path))):
        rows = {r.method: r for r in boards[0].rows}
        assert rows["kv_streaming"].status == OK and rows["kv_streaming"].reasons == []
        assert rows["kv_full"].cells["speedup_decode"].value == 1.0
        assert len(rows["kv_full"].reproduce) == 2
        assert rows["kv_streaming"].cells["t acc"].delta == pytest.approx(-0.5)


def test_a_newer_failure_counts_too(records, tmp_path):
    stored(tmp_path, "1", records)
    stored(tmp_path, "2", [record("kv_streaming", "cost", "chat", [], status=FAILED, reason="RuntimeError: now")])
    row = next(r for r in read_boards(tmp_path)[0].rows if r.method == "kv_streaming")
    assert row.status == FAILED and "speedup_decode" not in row.cells and "t acc" in row.cells


def test_records_of_an_older_schema_are_read(records, tmp_path):
    run = stored(tmp_path, "1", records)
    for table, missing in (("trials", ("environment", "threads", "reproduce")), ("measurements", ("direction",))):
        path = run.path / f"{table}.parquet"
        pl.read_parquet(path).drop(missing).write_parquet(path)
    (run.path / "samples.parquet").unlink()
    (board,) = read_boards(tmp_path)
    row = next(r for r in board.rows if r.method == "kv_streaming")
    assert row.cells["t acc"].value == 0.25 and row.cells["t acc"].delta is None and row.reproduce == []


def test_the_front_beats_beyond_noise_only(records):
    (board,) = build_boards(tables(records))
    front = {r.method: r.on_front for r in board.rows}
    # Faster and smaller, while the intervals of its accuracy touch the baseline's: nothing beats it, and it beats.
    assert front == {"kv_streaming": True, "kv_full": False, "kv_snapkv": False}


def test_order_of_cells_follows_the_direction_and_ignores_overlap():
    a, b = Cell(2.0, 1.9, 2.1), Cell(1.0, 0.9, 1.1)
    assert (_order(a, b, "higher"), _order(b, a, "higher"), _order(a, b, "lower")) == (1, -1, -1)
    assert _order(Cell(1.05, 0.95, 1.2), b, "higher") == 0
    assert _order(None, b, "higher") == -1


def test_zero_is_a_bound_like_any_other():
    assert _order(Cell(0.0, -0.1, 0.0), Cell(0.5, 0.4, 0.6), "higher") == -1


def test_all_formats_hold_the_same_numbers(records):
    boards = build_boards(tables(records))
    data = json.loads(json.dumps(as_data(boards)))
    assert data[0]["rows"][0]["cells"]["speedup_decode"]["value"] == 1.5
    rows = list(csv.DictReader(io.StringIO(csv_text(boards))))
    assert {float(r["value"]) for r in rows if r["column"] == "speedup_decode"} == {1.0, 1.5}
    text = markdown(boards)
    assert "1.5 [1.4, 1.6]" in text and "0.25 (-0.5 [" in text
    assert all(line.count("|") == text.splitlines()[2].count("|") for line in text.splitlines()[3:6])


def test_claims_are_named_as_the_papers(records):
    (board,) = build_boards(tables(records))
    assert any(note.startswith("kv_streaming, the paper's own: 22.2") for note in footnotes(board))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1536, "byte", "1.5 KiB"), (12.345, "ms", "12.3 ms"), (0.5, "share", "0.5"), (123456, "token/s", "123,456")],
)
def test_amounts(value, unit, text):
    assert amount(value, unit) == text


def test_a_modelled_figure_says_so():
    assert cell_text("energy_per_token_decode", Cell(0.5, source="model")) == "0.5 (model)"


def test_the_dictionary_defines_what_it_names():
    assert all(m.definition.endswith(".") and m.direction in ("higher", "lower", "none") for m in metrics().values())
    assert all(f"| `{name}` |" in dictionary_page() for name in metrics())


def seeded(method, values, documents=None):
    made = []
    for seed, value in enumerate(values):
        one = record(
            method,
            "quality",
            "t",
            [("acc", value, value - 0.4, value + 0.4, "t")],
            documents=documents[seed] if documents else (),
        )
        made.append(replace(one, trial={**one.trial, "seed": seed, "trial_id": f"{method}-{seed}"}))
    return made


def row_of(records, method):
    (board,) = build_boards(tables(records))
    (row,) = [r for r in board.rows if r.method == method]
    return row


def test_a_cell_is_the_mean_over_seeds_with_the_interval_between_them():
    row = row_of(seeded("kv_streaming", [0.2, 0.4, 0.3]), "kv_streaming")
    cell, expected = row.cells["t acc"], mean_interval([0.2, 0.4, 0.3])
    assert (cell.value, cell.low, cell.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert cell.n == 3 and any("means over 3 seeds" in note for note in row.reasons)


def test_one_seed_keeps_its_own_interval():
    cell = row_of(seeded("kv_streaming", [0.5]), "kv_streaming").cells["t acc"]
    assert (cell.low, cell.high, cell.n) == pytest.approx((0.1, 0.9, 5))


def test_differences_are_paired_by_seed():
    base = seeded("kv_full", [0.5, 1.0], [[1, 0], [1, 1]])
    ours = seeded("kv_streaming", [0.0, 0.5], [[0, 0], [1, 0]])
    cell = row_of([*base, *ours], "kv_streaming").cells["t acc"]
    assert cell.delta == -0.5 and cell.delta_low == cell.delta_high == -0.5


def test_a_seed_that_failed_fails_the_row():
    first, second = seeded("kv_streaming", [0.2, 0.4])
    row = row_of([first, replace(second, status=FAILED, reason="RuntimeError: boom", measurements=[])], "kv_streaming")
    assert row.status == FAILED and any("boom" in note for note in row.reasons) and not row.cells
