"""What is written about a gate: it parses, says the verdict in plain words, and no name can break its form."""

import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from harness.gate.finding import COUNT, DIFFERENCE, FAILED, NOT_JUDGED, Finding, Report
from harness.gate.reports import annotations, as_document, junit, markdown, verdict_line
from harness.stats.sequential import INCONCLUSIVE, PASS, REGRESSION

SLOWER = Finding(
    trial="ar on chatx16n4",
    metric="speedup_total",
    outcome=REGRESSION,
    value=0.0523,
    low=0.021,
    high=0.094,
    n=40,
    margin=0.05,
    floor=0.013,
)
UNSURE = replace(SLOWER, outcome=INCONCLUSIVE, value=0.02, low=-0.02, high=0.07, note="the budget is too small to tell")
FINE = replace(SLOWER, outcome=PASS, value=-0.004, low=-0.019, high=0.011)
MORE = Finding(
    trial="ar on chatx16n4",
    metric="forwards",
    outcome=REGRESSION,
    form=COUNT,
    value=0.25,
    sides=(20.0, 16.0),
    margin=0.0,
)
BROKEN = Finding(trial="ar on nothing", metric="speedup_total", outcome=FAILED, note="out of memory")
MODELLED = Finding(trial="ar on chatx16n4", metric="energy_per_token_decode", outcome=NOT_JUDGED, value=0.03)
WORSE = Finding(
    trial="t", metric="exact_match", outcome=REGRESSION, form=DIFFERENCE, value=-0.2, low=-0.3, high=-0.1, margin=0.05
)
HOSTILE = "a<b> | c\nd, 100%: `x` _y_ @z \x00 \U0001f600"


def report(*findings, **more):
    return Report(
        findings=list(findings),
        candidate="this checkout",
        baseline="0123456789ab",
        machine="m1",
        machine_label="a CPU",
        policy={"false_alarm": 0.01, "false_pass": 0.05},
        floors={"two processes": {"wall": {"value": 0.013}}},
        environment={"versions": {"torch": "2.13.0"}, "git": None},
        seconds=12.5,
        reproduce="zoo gate --policy ci/gate.toml --base 0123456789ab",
        **more,
    )


@pytest.mark.parametrize(
    ("findings", "line"),
    [
        ([SLOWER, FINE, UNSURE], "Regression: 1 of 3 comparisons worse than the baseline (1 inconclusive, 1 pass)."),
        ([FINE, BROKEN], "Failed: 1 of 2 comparisons without a measurement (1 pass)."),
        ([UNSURE, FINE, MODELLED], "Inconclusive: 1 of 2 comparisons too uncertain to judge (1 pass, 1 not judged)."),
        ([FINE, FINE], "Pass: 2 of 2 comparisons within their margins."),
        ([MODELLED], "Failed: nothing was compared."),
        ([], "Failed: nothing was compared."),
    ],
)
def test_the_verdict_is_one_plain_line(findings, line):
    assert verdict_line(report(*findings)) == line
    assert markdown(report(*findings)).startswith("**" + line.replace(":", ":**", 1))


@pytest.mark.parametrize(
    ("finding", "sentence"),
    [
        (
            SLOWER,
            "speedup_total: 5.23% more time than the baseline [+2.1%, +9.4%]: "
            "even the lower bound is above the noise floor of 1.3%",
        ),
        (
            FINE,
            "speedup_total: 0.4% less time than the baseline [-1.9%, +1.1%]: "
            "even the upper bound is below the margin of 5%",
        ),
        (
            UNSURE,
            "speedup_total: 2% more time than the baseline [-2%, +7%]: may be noise (floor 1.3%), "
            "may be the margin of 5% or more; the budget is too small to tell",
        ),
        (replace(FINE, metric="speedup_cpu", value=0.0), "the same CPU time as the baseline [-1.9%, +1.1%]"),
        (replace(UNSURE, low=None), "[unknown, +7%]"),
        (replace(UNSURE, low=0.03, note="not repeated"), "[+3%, +7%]; not repeated"),
        (MORE, "forwards: 20 against the baseline's 16, 25% worse, where nothing worse is allowed"),
        (replace(MORE, margin=0.1), "25% worse, where at most 10% worse is allowed"),
        (replace(MORE, value=math.inf, sides=(20.0, 0.0)), "20 against the baseline's 0, worse, where nothing"),
        (replace(MORE, outcome=PASS, value=-0.2, sides=(16.0, 20.0)), "16 against the baseline's 20, 20% better"),
        (replace(MORE, outcome=PASS, value=0.0, sides=(16.0, 16.0)), "forwards: 16, as the baseline"),
        (WORSE, "exact_match: 0.2 lower than the baseline [-0.3, -0.1]: certainly a loss"),
        (
            replace(WORSE, outcome=INCONCLUSIVE, value=-0.02, high=0.1),
            "0.02 lower than the baseline [-0.3, +0.1]: may be no loss, may be a loss of 0.05",
        ),
        (replace(WORSE, outcome=PASS, value=0.01), "0.01 higher than the baseline"),
        (replace(WORSE, outcome=PASS, value=0.0), "exact_match: the same as the baseline [-0.3, -0.1]"),
        (MODELLED, "energy_per_token_decode: 3% more energy a token than the baseline"),
        (replace(MODELLED, outcome=PASS, margin=0.1, floor=0.02), "baseline: less than the margin of 10%"),
        (BROKEN, "speedup_total: failed; out of memory"),
    ],
)
def test_a_sentence_stands_alone(finding, sentence):
    assert sentence in finding.sentence


def test_junit_tells_the_outcomes_apart():
    root = ElementTree.fromstring(junit(report(FINE, MODELLED, UNSURE, BROKEN, SLOWER)))
    suite = root.find("testsuite")
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "5",
        "failures": "1",
        "errors": "1",
        "skipped": "2",
        "time": "12.500",
    }
    kinds = [[child.tag for child in case if child.tag != "system-out"] for case in suite.iter("testcase")]
    assert kinds == [["failure"], ["error"], ["skipped"], [], ["skipped"]]
    first = suite.find("testcase")
    assert (first.get("classname"), first.get("name")) == ("ar on chatx16n4", "speedup_total")
    assert first.find("failure").get("message") == first.find("system-out").text == SLOWER.sentence
    assert root.find(".//skipped").get("message") == f"inconclusive: {UNSURE.sentence}"


def test_junit_carries_what_the_findings_rest_on():
    root = ElementTree.fromstring(junit(report(FINE, warnings=["a busy machine"])))
    facts = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert facts["machine"] == "m1" and facts["machine.label"] == "a CPU"
    assert facts["environment.versions.torch"] == "2.13.0" and "environment.git" not in facts
    assert facts["floor.two processes.wall.value"] == "0.013"
    assert (facts["policy.false_alarm"], facts["policy.false_pass"]) == ("0.01", "0.05")
    assert facts["warning"] == "a busy machine" and facts["reproduce"].startswith("zoo gate --policy")


def cells(row):
    return re.split(r"(?<!\\)\|", row.strip().strip("|"))


def test_markdown_puts_the_worst_first_and_folds_what_passes():
    text = markdown(report(FINE, UNSURE, MORE, SLOWER, BROKEN, MODELLED, warnings=["a busy machine"]))
    open_, folded = text.split("<details>")
    rows = [cells(line) for line in open_.splitlines() if line.startswith("| <code>")]
    assert [row[-1].strip() for row in rows] == ["regression", "regression", "failed", "inconclusive"]
    assert [part.strip() for part in rows[1]][1:6] == [
        "<code>speedup_total</code>",
        "+5.23% (+2.1% to +9.4%)",
        "5%",
        "1.30%",
        "40",
    ]
    assert rows[0][2].strip() == "20 against 16" and rows[0][3].strip() == "0%"
    assert "<summary>pass: 1, not judged: 1</summary>" in folded and "-0.4% (-1.9% to +1.1%)" in folded
    for fact in ("a CPU", "Rule: ", "at most 0.01", "at most 0.05", "a busy machine", "<code>zoo gate --policy"):
        assert fact in folded
    assert "out of memory" in open_


def test_markdown_without_trouble_has_no_open_table():
    text = markdown(report(FINE))
    assert text.splitlines()[2].startswith("<details><summary>pass: 1</summary>")


def test_hostile_names_stay_names():
    bad = report(replace(SLOWER, trial=HOSTILE, metric="m|<x>", note=HOSTILE), warnings=[HOSTILE])
    case = ElementTree.fromstring(junit(bad)).find("testsuite/testcase")
    assert case.get("classname") == HOSTILE.replace("\x00", "\ufffd") and case.get("name") == "m|<x>"

    text = markdown(bad)
    row = next(line for line in text.splitlines() if line.startswith("| <code>"))
    assert len(cells(row)) == 7
    assert "<b>" not in text and "`" not in text and "_y_" not in text and " @z" not in text

    (line,) = annotations(bad).splitlines()
    title, message = re.fullmatch(r"::error title=([^:,]*)::(.*)", line).groups()
    assert "%0A" in title and "100%25%3A" in title and "%2C" in title
    assert "100%25: " in message and "%0A" in message


def test_annotations_name_what_needs_a_look_and_nothing_else():
    lines = annotations(report(FINE, UNSURE, BROKEN, SLOWER, MODELLED)).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::error", "::warning"]
    assert lines[0] == f"::error title=regression%3A ar on chatx16n4::{SLOWER.sentence.replace('%', '%25')}"
    assert annotations(report(FINE, MODELLED)) == ""


def test_the_document_is_plain_data_with_sentences():
    document = json.loads(json.dumps(as_document(report(FINE, SLOWER))))
    assert document["outcome"] == REGRESSION and document["verdict"].startswith("Regression: 1 of 2")
    assert [f["sentence"] for f in document["findings"]] == [SLOWER.sentence, FINE.sentence]
    assert document["findings"][0]["margin"] == 0.05 and document["floors"]["two processes"]["wall"]["value"] == 0.013
    assert {"policy", "machine", "environment", "warnings", "seconds", "reproduce"} <= document.keys()


def test_an_empty_gate_is_a_failure_everywhere():
    empty = Report()
    assert markdown(empty).startswith("**Failed:** nothing was compared.")
    assert ElementTree.fromstring(junit(empty)).get("tests") == "0"
    assert annotations(empty) == "" and as_document(empty)["outcome"] == FAILED
