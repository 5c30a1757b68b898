"""zoo list."""

import json

import pytest


def test_methods_stand_by_kind_with_guarantee_and_title(zoo):
    code, out, _ = zoo("list")
    lines = {words[0]: line for line in out.splitlines() if (words := line.split())}
    assert code == 0
    assert "pruning" in lines["kv_snapkv"] and "approximate" in lines["kv_snapkv"] and "SnapKV" in lines["kv_snapkv"]
    order = list(lines)
    assert order.index("kv_streaming") < order.index("ar")


def test_json_holds_the_same_methods(zoo):
    document = json.loads(zoo("list", "--json")[1])
    by_id = {row["id"]: row for row in document["methods"]}
    assert by_id["token_recycling"]["baseline"] == "ar" and by_id["token_recycling"]["guarantee"] == "exact"
    assert document["problems"] == []


def test_kind_chooses(zoo):
    rows = json.loads(zoo("list", "--kind", "speculative", "--json")[1])["methods"]
    assert {row["kind"] for row in rows} == {"speculative"}


def test_a_kind_without_methods_is_empty_and_no_error(zoo, monkeypatch):
    from harness.catalog.registry import Catalog
    from harness.cli import list_

    monkeypatch.setattr(list_, "read_catalog", lambda: Catalog({}, ()))
    code, out, err = zoo("list", "--kind", "pruning")
    assert (code, out) == (0, "") and "no methods of kind pruning" in err


def test_kind_belongs_to_methods(zoo):
    code, _, err = zoo("list", "models", "--kind", "pruning")
    assert code == 2 and "--kind" in err


@pytest.mark.parametrize(
    ("what", "column", "member"),
    [("models", "model", "smollm2-135m-q4"), ("suites", "suite", "smoke"), ("tasks", "task", "zoo_kvc8")],
)
def test_the_other_lists(zoo, what, column, member):
    assert member in zoo("list", what)[1]
    rows = json.loads(zoo("list", what, "--json")[1])[what]
    assert member in {row[column] for row in rows}


def test_a_broken_suite_is_a_warning(zoo, monkeypatch, tmp_path):
    (tmp_path / "good.yaml").write_text("name: good\ndescription: fine\nentries: []\n", encoding="utf-8")
    (tmp_path / "bad.yaml").write_text("nme: bad\nentries: []\n", encoding="utf-8")
    monkeypatch.setattr("harness.run.suite.suite_folder", lambda: tmp_path)
    code, out, err = zoo("list", "suites")
    assert code == 0 and "fine" in out and "bad.yaml" in err
