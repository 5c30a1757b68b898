"""`zoo leaderboard` on stored records: formats, filters, narrow terminals, wrong names."""

import csv
import io
import json

import pytest

from harness.records.schema import MeasurementRow, TrialRecord
from harness.records.store import RunFolder


@pytest.fixture
def results(tmp_path):
    folder = RunFolder.create(tmp_path / "results", "20260101-unit", {})
    for method, speed in (("ar", 1.0), ("prompt_lookup", 1.5)):
        trial = {
            "trial_id": method,
            "kind": "cost",
            "method_kind": "speculative",
            "method": method,
            "baseline": "ar",
            "model": "m",
            "target": "chatx8n2",
            "dtype": None,
            "device": "cpu",
            "options": {},
            "threads": 1,
            "seed": 0,
            "suite": "unit",
            "reproduce": "zoo run",
        }
        rows = [MeasurementRow(metric="speedup_total", value=speed, low=speed - 0.1, high=speed + 0.1, n=3)]
        rows += [MeasurementRow(metric=m, value=1.0) for m in ("ttft_p50", "ttft_p90", "tpot_p50", "tpot_p90")]
        folder.store(TrialRecord(trial=trial, status="ok", started="2026-01-01", measurements=rows))
    return str(tmp_path / "results")


def test_table_names_both_and_the_faster_first(zoo, results):
    code, out, err = zoo("leaderboard", "--output_path", results)
    assert code == 0 and err == ""
    assert out.index("prompt_lookup") < out.index(" ar ")
    assert "1.5 [1.4, 1.6]" in out and "the paper's own" in out


def test_json_csv_and_markdown_hold_the_same_figure(zoo, results):
    document = json.loads(zoo("leaderboard", "--output_path", results, "--json")[1])
    assert document[0]["rows"][0]["cells"]["speedup_total"]["value"] == 1.5
    rows = list(csv.DictReader(io.StringIO(zoo("leaderboard", "--output_path", results, "--format", "csv")[1])))
    assert "1.5" in {row["value"] for row in rows}
    assert "| 1.5 [1.4, 1.6] |" in zoo("leaderboard", "--output_path", results, "--format", "markdown")[1]


def test_the_front_alone(zoo, results):
    document = json.loads(zoo("leaderboard", "--output_path", results, "--front", "--json")[1])
    assert [row["method"] for row in document[0]["rows"]] == ["prompt_lookup"]


def test_a_narrow_terminal_leaves_columns_out_and_says_so(zoo, results, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    out = zoo("leaderboard", "--output_path", results)[1]
    assert "left out for want of width: " in out and "1.5 [1.4, 1.6]" in out
    assert "TPOT p90" in out.split("left out for want of width: ")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--sort", "speedup_totl"), 2, "did you mean 'speedup_total'"),
        (("--kind", "speculativ"), 2, "did you mean 'speculative'"),
        (("--suite", "smoke"), 2, "suites there: unit"),
    ],
)
def test_wrong_names_are_one_line(zoo, results, arguments, code, words):
    got, out, err = zoo("leaderboard", "--output_path", results, *arguments)
    assert (got, out) == (code, "") and words in err and len(err.strip().splitlines()) == 1


def test_a_misspelt_kind_is_told_without_any_records(zoo, tmp_path):
    code, _, err = zoo("leaderboard", "--kind", "prunning", "--output_path", str(tmp_path / "none"))
    assert code == 2 and "did you mean 'pruning'" in err


def test_no_records_is_exit_code_four(zoo, tmp_path):
    code, _, err = zoo("leaderboard", "--output_path", str(tmp_path / "none"))
    assert code == 4 and "run `zoo run` first" in err
