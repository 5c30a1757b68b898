"""`zoo reproduce` on the command line: the exit code says what the sentence says."""

import json

import pytest

from harness.records.schema import TrialRecord
from harness.records.store import RunFolder
from harness.run import reproduce as module
from harness.run.reproduce import DIFFERS, IMPOSSIBLE, SAME, Compared, Reproduction

ACC = Compared("acc", "", 0.5, 0.5, SAME, "equal")
LOST = Compared("acc", "", 0.5, 0.25, DIFFERS, "it has no noise and must be equal")


@pytest.fixture
def reproduce(zoo, monkeypatch, tmp_path):
    """``reproduce(verdict, figures, words)``: the verb on a trial that comes out so."""

    def call(verdict, figures, *words, **more):
        def run_again(results, trial_id, tell):
            assert (results, trial_id) == (tmp_path / "r", "abc")
            tell({"event": "done", "status": "ok"})
            return Reproduction("abcdef", "ar on t (m)", verdict, figures=figures, **more)

        monkeypatch.setattr(module, "reproduce", run_again)
        return zoo("reproduce", "abc", "--output_path", str(tmp_path / "r"), *words)

    return call


def test_the_same_is_0(reproduce):
    code, out, err = reproduce(SAME, [ACC], changes=["torch was 1.0, is 2.0"])
    assert (code, err) == (0, "done ok\n")
    *_, change, sentence = out.splitlines()
    assert change == "changed: torch was 1.0, is 2.0"
    assert sentence == "ar on t (m): same; 1 figure agrees within its interval"
    assert "acc" in out and "abcdef" in out


def test_a_difference_is_1(reproduce):
    code, out, err = reproduce(DIFFERS, [ACC, LOST])
    assert code == 1 and "zoo: " not in err
    assert out.splitlines()[-1].startswith("ar on t (m): differs in 1 of 2 figures: acc was 0.5, is 0.25 (")


def test_what_cannot_be_reproduced_is_4_and_one_line(reproduce):
    code, out, err = reproduce(IMPOSSIBLE, [], reason="the model is another")
    assert code == 4
    assert err.splitlines()[-1] == "zoo: ar on t (m): cannot be reproduced here: the model is another"
    assert "cannot be reproduced" not in out


@pytest.mark.parametrize(("verdict", "figures", "code"), [(SAME, [ACC], 0), (DIFFERS, [LOST], 1), (IMPOSSIBLE, [], 4)])
def test_json_is_one_document_whatever_the_verdict(reproduce, verdict, figures, code):
    found, out, _ = reproduce(verdict, figures, "--json", reason="why")
    document = json.loads(out)
    assert found == code and document["verdict"] == verdict and document["sentence"].startswith("ar on t (m)")
    assert [f["now"] for f in document["figures"]] == [f.now for f in figures]


@pytest.fixture
def recorded(tmp_path):
    """Two trials that failed, in a run's folder."""
    folder = RunFolder.create(tmp_path / "results", "one", {})
    for trial_id in ("aabb", "aacc"):
        trial = {
            "trial_id": trial_id,
            "kind": "cost",
            "method_kind": "speculative",
            "method": "ar",
            "baseline": "ar",
            "model": "tiny-random",
            "target": "chatx4n2",
            "dtype": None,
            "device": "cpu",
            "options": {},
            "threads": 1,
            "seed": 0,
        }
        folder.store(TrialRecord(trial=trial, status="failed", reason="out of memory", started="2026-01-01"))
    return str(tmp_path / "results")


@pytest.mark.parametrize(
    ("trial_id", "line"),
    [
        ("aabb", "trial aabb ended as failed (out of memory): there is no figure"),
        ("aa", "2 trials begin with 'aa'; give more of the id"),
        ("bb", "no trial 'bb' under"),
    ],
)
def test_an_id_without_a_figure_is_2_and_one_line(zoo, recorded, trial_id, line):
    code, out, err = zoo("reproduce", trial_id, "--output_path", recorded)
    assert (code, out) == (2, "") and err.startswith("zoo: ") and err.count("\n") == 1 and line in err


def test_without_records_it_is_4(zoo, tmp_path):
    code, _, err = zoo("reproduce", "aabb", "--output_path", str(tmp_path))
    assert code == 4 and err.startswith("zoo: no records under") and err.count("\n") == 1


def test_the_trial_is_asked_for(zoo):
    assert zoo("reproduce")[::2] == (2, "zoo: missing argument 'TRIAL'; 'zoo reproduce --help' shows what there is\n")
