"""`zoo export`: where documents go, and what wrong words lead to."""

import csv
import io
import json

import pytest

from harness.records.schema import MeasurementRow, TrialRecord
from harness.records.store import RunFolder


@pytest.fixture
def results(tmp_path):
    """Two quality trials of two methods, with lm-eval's file, and a cost trial."""
    folder = RunFolder.create(tmp_path / "results", "run1", {})
    for method, kind in (("ar", "quality"), ("lookup", "quality"), ("lookup", "cost")):
        trial = {
            "trial_id": f"{method}-{kind}",
            "kind": kind,
            "method_kind": "speculative",
            "method": method,
            "baseline": "ar",
            "model": "org/m",
            "target": "sum" if kind == "quality" else "chat",
            "dtype": None,
            "device": "cpu",
            "options": {},
            "threads": 1,
            "seed": 0,
            "suite": "unit",
        }
        work = folder.scratch()
        if kind == "quality":
            kept = work / "lm-eval" / "org__m"
            kept.mkdir(parents=True)
            document = {"results": {"sum": {"acc,none": 0.5}}, "config": {"model_args": {}}}
            (kept / "results_2026-01-01T00-00-00.000001.json").write_text(json.dumps(document))
        rows = [MeasurementRow(metric="acc", value=0.5, phase="sum")] if kind == "quality" else []
        samples = [{"side": "candidate", "unit": 0, "name": "total_s", "value": 0.5}] if kind == "cost" else []
        record = TrialRecord(trial=trial, status="ok", started="2026-01-01", measurements=rows, samples=samples)
        folder.store(record, work)
    return str(tmp_path / "results")


def test_documents_go_to_stdout(zoo, results):
    code, out, err = zoo("export", "pytest-benchmark", "--output_path", results)
    assert (code, err) == (0, "") and json.loads(out)["benchmarks"][0]["stats"]["min"] == 0.5
    assert json.loads(zoo("export", "bencher", "--output_path", results)[1])["org/m/sum[ar]"]["acc"] == {"value": 0.5}
    rows = list(csv.DictReader(io.StringIO(zoo("export", "csv", "--output_path", results)[1])))
    assert [row["method"] for row in rows] == ["ar", "lookup", "lookup"]
    several = json.loads(zoo("export", "lm-eval", "--output_path", results)[1])
    assert [document["model_name"] for document in several] == ["org/m+ar", "org/m+lookup"]


def test_a_file_is_written_under_the_name_given_and_a_folder_takes_the_usual_name(zoo, results, tmp_path):
    file = tmp_path / "new" / "b.json"
    code, out, _ = zoo("export", "bencher", "--output_path", results, "--output", str(file))
    assert (code, out) == (0, f"{file}\n") and "org/m/sum[ar]" in json.loads(file.read_text())
    zoo("export", "csv", "--output_path", results, "--output", str(tmp_path / "new"))
    assert (tmp_path / "new" / "measurements.csv").read_text().startswith("trial_id,")


def test_lm_eval_documents_go_to_a_folder_one_file_each(zoo, results, tmp_path):
    code, out, _ = zoo("export", "lm-eval", "--output_path", results, "--output", str(tmp_path / "he"))
    name = "results_2026-01-01T00-00-00.000001.json"
    files = [tmp_path / "he" / f"org__m+{method}" / name for method in ("ar", "lookup")]
    assert code == 0 and out.split() == [str(file) for file in files]
    assert json.loads(files[1].read_text())["config"]["model_args"] == {"method": "lookup"}
    one = tmp_path / "one.json"
    code, _, err = zoo("export", "lm-eval", "--output_path", results, "--output", str(one))
    assert code == 2 and "2 documents do not go into one file" in err and not one.exists()


def test_the_suite_the_run_and_their_variables_choose(zoo, results, monkeypatch):
    for option, wrong, hint in (("--suite", "unitt", "unit"), ("--run", "run2", "run1")):
        code, out, err = zoo("export", "csv", "--output_path", results, option, wrong)
        assert (code, out) == (2, "") and f"did you mean '{hint}'" in err and err.count("\n") == 1
        assert zoo("export", "csv", "--output_path", results, option, hint)[0] == 0
    monkeypatch.setenv("ZOO_RUN", "run2")
    assert zoo("export", "csv", "--output_path", results)[0] == 2


def test_what_is_left_out_is_said_on_stderr(zoo, results, tmp_path):
    next((tmp_path / "results").rglob("lookup-quality/lm-eval/*/*.json")).unlink()
    code, out, err = zoo("export", "lm-eval", "--output_path", results)
    assert code == 0 and json.loads(out)["model_name"] == "org/m+ar" and "left out: lookup on sum" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("export", "pytest-benchmrk"), 2, "did you mean 'pytest-benchmark'"),
        (("export",), 2, "FORMAT"),
        (("export", "csv", "--output_path", "nowhere"), 4, "run `zoo run` first"),
    ],
)
def test_wrong_words_are_one_line(zoo, arguments, code, words):
    got, out, err = zoo(*arguments)
    assert (got, out) == (code, "") and words in err and err.count("\n") == 1


def test_nothing_to_export_and_nowhere_to_write_are_exit_code_four(zoo, results, tmp_path):
    (tmp_path / "file").write_text("")
    target = str(tmp_path / "file" / "b.json")
    code, _, err = zoo("export", "bencher", "--output_path", results, "--output", target)
    assert code == 4 and "give another --output" in err and err.count("\n") == 1
    RunFolder.create(tmp_path / "bare", "r", {})
    code, _, err = zoo("export", "lm-eval", "--output_path", str(tmp_path / "bare"))
    assert code == 4 and err.count("\n") == 1
