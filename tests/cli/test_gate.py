"""`zoo gate` on the command line: exit codes, what is written where, and one line for whatever is wrong."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from harness.catalog.spec import MethodSpec
from harness.errors import EnvironmentFailed
from harness.gate import session
from harness.gate.finding import FAILED, Finding, Report
from harness.kinds import checking
from harness.kinds.checking import CheckResult
from harness.run.station import Station
from harness.stats.sequential import INCONCLUSIVE, PASS, REGRESSION
from harness.subjects.load import load_subject

FOUND = Finding(
    trial="ar on chatx4n2",
    metric="speedup_total",
    outcome=PASS,
    value=0.01,
    low=0.0,
    high=0.02,
    n=9,
    margin=0.05,
    floor=0.01,
)


@pytest.fixture
def gate(zoo, tmp_path, monkeypatch):
    """``gate(trials, "--strict", margin=0.1)`` writes a policy of such trials and calls the gate with it."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def call(trials, *words, **fields):
        fields = {"model": "tiny-random", "budget_s": 0.2, **fields}
        lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
        for trial in trials:
            lines += ["[[trial]]", *(f"{name} = {json.dumps(value)}" for name, value in trial.items())]
        policy = tmp_path / "gate.toml"
        policy.write_text("\n".join(lines))
        return zoo(*("gate", "--policy", str(policy), "--device", "cpu", "--output_path", str(tmp_path / "r")), *words)

    return call


def rival(method, against, *metrics):
    return {"method": method, "against": against, "decode": "chatx4n2", "metrics": metrics}


EQUAL = rival("ar", "ar", "forwards", "kv_bytes_held")
MORE_BYTES = rival("kv_full", "kv_streaming@keep_ratio=0.5", "forwards", "kv_bytes_held")


def one_line(err):
    """The last line, which says what was wrong; those before it are about progress."""
    *_, last = err.splitlines()
    assert last.startswith("zoo: ") and err.count("zoo: ") == 1 and "Traceback" not in err, err
    return last


def test_equal_sides_pass_in_a_process_of_their_own(gate, noise_known, tmp_path):
    """The whole way, with a real process; methods are known to be sound."""
    noise_known(0.5)
    subject = load_subject("tiny-random")
    checking._store(checking._cache_path(MethodSpec("ar"), subject), [CheckResult("a", "passed")])
    trial = {**EQUAL, "metrics": ["forwards", "kv_bytes_held", "speedup_total"]}
    code, out, err = gate([trial], "--json", margin=0.95, budget_s=30.0)  # it stops at the first look
    assert code == 0, err
    report = json.loads(out)
    assert {f["metric"]: f["outcome"] for f in report["findings"]} == dict.fromkeys(trial["metrics"], PASS)
    assert report["outcome"] == PASS and report["findings"][2]["floor"] == 0.5
    (folder,) = (tmp_path / "r" / "gates").iterdir()
    assert {"gate.json", "trial-000.json", "stations.log"} <= {p.name for p in folder.iterdir()}
    visits = json.loads((folder / "trial-000.json").read_text())["visits"]
    assert len(visits) == 4 * report["findings"][2]["n"] >= 4 * 12


def test_a_worse_count_is_1(gate, noise_known, stations_here):
    noise_known()
    code, out, err = gate([EQUAL, MORE_BYTES])
    assert code == 1 and "zoo: " not in err
    rows = [line.split() for line in out.splitlines() if "kv_bytes_held" in line]
    assert [row[0] for row in rows] == ["regression", "pass"]  # the worst first
    assert "each method against its rival" in out and "gate: regression" in out


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--strict",), 3)])
def test_a_budget_too_small_to_tell_is_inconclusive(gate, noise_known, stations_here, words, code):
    noise_known()
    trial = rival("ar", "ar", "speedup_total")
    found, out, _ = gate([trial], *words, margin=0.02, budget_s=0.001)
    assert found == code and "the budget is too small to tell" in out


def test_when_every_trial_failed_it_is_4(gate, noise_known, stations_here, monkeypatch):
    noise_known()

    def fail(self, *_, **__):
        raise EnvironmentFailed("out of memory")

    monkeypatch.setattr(Station, "open_decode", fail)
    code, out, _ = gate([EQUAL], "--json")
    assert code == 4 and {f["outcome"] for f in json.loads(out)["findings"]} == {FAILED}
    assert {f["note"] for f in json.loads(out)["findings"]} == {"out of memory"}


@pytest.mark.parametrize(
    ("trial", "fields", "code", "words"),
    [
        ({**EQUAL, "metrics": ["speedup_totl"]}, {}, 2, "did you mean 'speedup_total'"),
        ({**EQUAL, "metod": "ar"}, {}, 2, "did you mean 'method'"),
        ({**EQUAL, "method": "kv_ful"}, {}, 2, "did you mean 'kv_full'"),
        ({**EQUAL, "decode": "chat x"}, {}, 2, "cannot read decode workload"),
        (EQUAL, {"model": "tiny-randm"}, 2, "did you mean 'tiny-random'"),
        (EQUAL, {"margn": 0.1}, 2, "did you mean 'margin'"),
        (EQUAL, {"margin": -1}, 2, "margin"),
        (rival("ar", "ar", "speedup_total"), {"margin": 0.05}, 2, "lies below this machine's noise floor of 10.00%"),
    ],
)
def test_a_bad_policy_is_one_line(gate, noise_known, stations_here, trial, fields, code, words):
    noise_known(0.1)
    found, out, err = gate([trial], **fields)
    assert (found, out) == (code, "") and words in one_line(err)


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("--policy", "no/such.toml"), 2, "policy no/such.toml cannot be read"),
        (("--base", "no-such-revision"), 2, "'no-such-revision' is no revision"),
        (("--reference", "no/such/run"), 4, "no records under"),
        (("--output_path", "/dev/null/results"), 4, "give --output_path"),
    ],
)
def test_a_side_or_place_that_is_not_there_is_one_line(gate, stations_here, words, code, line):
    trial = {name: value for name, value in EQUAL.items() if name != "against" or "--output_path" in words}
    found, out, err = gate([trial], *words)
    assert (found, out) == (code, "") and line in one_line(err)


@pytest.fixture
def held(monkeypatch, gate, tmp_path):
    """A gate that finds what is given; ``held(findings, words)`` gives code, stdout and stderr."""

    def call(findings, *words, trial=EQUAL, **sides):
        def hold(request, tell):
            made = Report(findings=list(findings), machine="m1", machine_label="a CPU", seconds=2.0, **sides)
            return replace(made, policy=request.policy.model_dump(exclude_none=True))

        monkeypatch.setattr(session, "hold_gate", hold)
        return gate([trial], *words)

    return call


WORSE, UNSURE, BROKEN = (replace(FOUND, outcome=outcome) for outcome in (REGRESSION, INCONCLUSIVE, FAILED))


@pytest.mark.parametrize(
    ("findings", "plain", "strict"),
    [
        ([FOUND], 0, 0),
        ([FOUND, UNSURE], 0, 3),
        ([FOUND, UNSURE, WORSE], 1, 1),
        ([FOUND, WORSE, BROKEN], 1, 1),
        ([FOUND, UNSURE, BROKEN], 4, 4),
        ([], 4, 4),
    ],
)
def test_exit_codes(held, findings, plain, strict):
    assert held(findings)[0] == plain and held(findings, "--strict")[0] == strict


def test_reports_are_written_where_they_are_asked_for(held, tmp_path, monkeypatch):
    summary = tmp_path / "summary.md"
    summary.write_text("an earlier step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    junit, comment = tmp_path / "new" / "gate.xml", tmp_path / "comment.md"
    code, out, _ = held([FOUND, WORSE], "--junit", str(junit), "--markdown", str(comment), "--annotations")
    assert code == 1
    suites = ElementTree.parse(junit).getroot()
    assert (suites.get("tests"), suites.get("failures")) == ("2", "1")
    assert comment.read_text().startswith("**Regression:**")
    assert summary.read_text() == "an earlier step\n" + comment.read_text()
    assert out.splitlines()[-1].startswith("::error title=regression")
    held([FOUND])
    assert summary.read_text().endswith("\n") and summary.read_text().count("**Pass:**") == 1


def test_json_stays_one_document_beside_annotations(held, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    code, out, err = held([WORSE], "--json")
    assert code == 1 and json.loads(out)["outcome"] == REGRESSION and "::error title=" in err
    assert "::error title=" in held([WORSE])[1]
    assert held([FOUND], "--json")[2] == ""  # nothing to annotate


def test_without_github_nothing_is_annotated(held):
    assert "::" not in held([WORSE])[1]


@pytest.mark.parametrize("place", ["--junit", "--markdown", "GITHUB_STEP_SUMMARY"])
def test_a_report_that_cannot_be_written_is_one_line_after_the_verdict(held, monkeypatch, place):
    words = [place, "/dev/null/report"] if place.startswith("--") else []
    if not words:
        monkeypatch.setenv(place, "/dev/null/report")
    code, out, err = held([WORSE], *words)
    assert code == 4 and "gate: regression" in out
    assert one_line(err).startswith("zoo: cannot write /dev/null/report: ")


@pytest.mark.parametrize(
    ("words", "trial", "sides", "ending"),
    [
        ((), EQUAL, {"baseline": "its rival"}, "gate.toml"),
        ((), {"method": "ar", "decode": "chat"}, {"baseline": "0123456789ab"}, "gate.toml --base 0123456789ab"),
        (("--reference", "old"), {"method": "ar", "decode": "chat"}, {}, "gate.toml --reference old"),
    ],
)
def test_the_report_says_how_to_run_the_gate_again(held, words, trial, sides, ending):
    report = json.loads(held([FOUND], "--json", *words, trial=trial, **sides)[1])
    assert report["reproduce"].startswith("zoo gate --policy ") and report["reproduce"].endswith(ending)


def test_the_table_has_margins_floors_and_error_rates(held):
    out = held([FOUND], candidate="this checkout", baseline="0123456789ab")[1]
    assert "5.00%" in out and "1.00%" in out
    assert "this checkout against 0123456789ab on a CPU, 2 s" in out
    assert "at most 0.01 for the whole gate; that one slow-down of the margin passes: at most 0.05" in out


def test_the_request_has_what_was_asked_for(gate, monkeypatch, tmp_path):
    got = []

    def hold(request, tell):
        got.append(request)
        raise EnvironmentFailed("enough")

    monkeypatch.setattr(session, "hold_gate", hold)
    words = ["--base", "v1", "--base-python", "py", "--repository", "there", "--force", "--reference", "old"]
    assert gate([EQUAL], *words)[0] == 4
    (request,) = got
    assert (request.base, request.base_python, str(request.repository)) == ("v1", "py", "there")
    assert (str(request.reference), request.force, request.device) == ("old", True, "cpu")
    assert request.results == tmp_path / "r" and request.policy.trial[0].method == "ar"


def test_help_states_the_rule(zoo):
    text = " ".join(zoo("gate", "--help")[1].split())
    for words in ("lower bound of the slow-down", "upper bound lies below the margin", "inconclusive"):
        assert words in text
