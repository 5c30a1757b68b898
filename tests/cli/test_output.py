"""What verbs print."""

import json

import pytest

from harness.cli.output import cell, print_json, print_table


def test_json_has_no_numbers_that_json_lacks(capsys):
    print_json({"a": float("nan"), "b": [float("inf"), 1.5], 3: ("é", None)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "3": ["é", None]}


@pytest.mark.parametrize(("value", "shown"), [(None, ""), (1.23456, "1.235"), (12, "12"), ("[bold]x", "[bold]x")])
def test_cells(value, shown):
    assert cell(value) == shown


def test_a_table_into_a_pipe_is_not_cut_and_takes_text_as_it_is(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    long = "[red]" + "word " * 60 + "end"
    print_table(["id", "text"], [["a", long], ["b", None]], title="Title")
    out = capsys.readouterr().out
    assert long in out and "Title" in out and len(out.strip().splitlines()) == 5


def test_numbers_stand_to_the_right(capsys):
    print_table(["n", "s"], [[1, "x"], [100, "y"]])
    assert "  1   x" in capsys.readouterr().out
