"""The table of tasks/README.md: made from baselines.json, with intervals and verdicts that can be recomputed."""

import json
import math

import pytest

from tasks import include_path, our_configs
from tasks.measure_baselines import (
    BEGIN,
    END,
    chance_level,
    estimate,
    measure,
    measured_tasks,
    table,
    verdict,
    write_readme,
)


def test_estimates():
    rare = estimate([0.0] * 50)
    assert rare["value"] == 0 and rare["low"] == 0 and 0.05 < rare["high"] < 0.1  # Wilson, not a point
    mean = estimate([1.5, 2.5, 3.5, 4.5] * 10)
    assert mean["value"] == 3 and mean["low"] < 3 < mean["high"] and mean["n"] == 40
    bits = estimate([(-math.log(2) * 8, 4), (-math.log(2) * 8, 12)] * 10)
    assert bits["value"] == pytest.approx(1.0) and bits["low"] < 1 < bits["high"]


@pytest.mark.parametrize(
    ("value", "half", "expected"),
    [(0.3, 0.06, "floor"), (0.4, 0.05, "low"), (0.6, 0.05, "middle"), (0.85, 0.04, "high"), (0.97, 0.02, "ceiling")],
)
def test_verdicts_between_chance_and_one(value, half, expected):
    figure = {"value": value, "low": value - half, "high": value + half, "n": 100}
    assert verdict(figure, 0.25) == expected
    assert verdict(figure, None) == "open"


def test_chance_is_the_mean_over_documents():
    samples = [{"doc": {"choices": [" a", " b"]}}, {"doc": {"choices": [" a", " b", " c", " d"]}}]
    assert chance_level("multiple_choice", samples) == 0.375
    closed = [{"doc": {"choices": [" 0", " 1", " 2"], "answer": a}} for a in (2, 2, 2, 0)]
    assert chance_level("multiple_choice", closed) == 0.75  # always saying 2
    assert chance_level("generate_until", samples) == 0.0
    assert chance_level("loglikelihood", samples) is None


def test_measuring_gives_a_row(tiny):
    row = measure(tiny, "zoo_agree1", limit=4)
    assert row["metric"] == "acc" and row["chance"] == 0.5 and row["figures"]["acc"]["n"] == 4
    assert set(row["figures"]) == {"acc", "choice_margin"}


def test_the_page_shows_what_was_measured(tmp_path):
    record = json.loads((include_path() / "baselines.json").read_text())
    page = (include_path() / "README.md").read_text()
    assert page.split(BEGIN)[1].split(END)[0].strip() == table(record)
    for task, row in record["tasks"].items():
        assert row["version"] == our_configs()[task]["metadata"]["version"], f"{task} changed: measure it again"
    assert {k for k in measured_tasks() if k.startswith("zoo_")} <= set(record["tasks"]) <= set(measured_tasks())
    copy = tmp_path / "README.md"
    copy.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_readme(record, copy)
    assert copy.read_text() == f"before\n{BEGIN}\n{table(record)}\n{END}\nafter\n"
