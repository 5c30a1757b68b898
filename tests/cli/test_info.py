"""zoo info."""

import json

import pytest


def test_a_method_shows_card_ranges_claims_and_sources(zoo):
    code, out, _ = zoo("info", "kv_snapkv")
    assert code == 0
    for part in ("arXiv:2404.14469", "> 0, <= 1", "part of the tokens kept", "not measured here", "kv_full"):
        assert part in out
    assert "reference code (32 to 64)" in out


def test_json_marks_claims_as_the_papers(zoo):
    document = json.loads(zoo("info", "kv_snapkv", "--json")[1])
    assert {claim["by"] for claim in document["claims"]} == {"paper"}
    window = {row["name"]: row for row in document["parameters"]}["window"]
    assert window == {
        "name": "window",
        "type": "int",
        "default": 32,
        "range": ">= 1",
        "description": "last queries that vote; always kept",
    }


@pytest.mark.parametrize(("name", "what"), [("tiny-random", "model"), ("smoke", "suite"), ("zoo_kvc8", "task")])
def test_models_suites_and_tasks(zoo, name, what):
    assert json.loads(zoo("info", name, "--json")[1])["what"] == what
    assert f"{what}: {name}" in zoo("info", name)[1]


def test_markdown_is_the_methods_page(zoo):
    from harness.catalog.pages import method_page
    from harness.catalog.registry import find

    assert zoo("info", "ar", "--markdown")[1] == method_page(find("ar"))


def test_all_markdown_holds_every_method_once(zoo):
    from harness.catalog.registry import catalog

    headings = [line for line in zoo("info", "--all", "--markdown")[1].splitlines() if line.startswith("### ")]
    assert sorted(headings) == sorted(f"### `{name}`" for name in catalog())


def test_all_json_is_one_document(zoo):
    from harness.catalog.registry import catalog

    assert {row["id"] for row in json.loads(zoo("info", "--all", "--json")[1])["methods"]} == set(catalog())


@pytest.mark.parametrize(
    "arguments",
    [(), ("ar", "--all"), ("--all",), ("ar", "--markdown", "--json"), ("tiny-random", "--markdown")],
)
def test_combinations_without_meaning_are_refused(zoo, arguments):
    code, out, err = zoo("info", *arguments)
    assert (code, out) == (2, "") and err.startswith("zoo: ")
