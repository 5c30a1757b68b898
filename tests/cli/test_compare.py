"""`zoo compare` on the command line: table and sentences, what is asked of which side, one line for what is wrong."""

import json
import sys
from pathlib import Path

import pytest

from harness.errors import EnvironmentFailed
from harness.gate import compare as module
from harness.gate import revision
from harness.gate.revision import Revision
from harness.run.station import Station

TINY = ("--model", "tiny-random", "--device", "cpu")
SIDES = ("kv_streaming@keep_ratio=0.5", "kv_full")


def test_both_sides_in_a_table_and_in_sentences(zoo, stations_here):
    code, out, err = zoo("compare", *SIDES, *TINY, "--decode", "chatx6n3,chatx4n2")
    assert code == 0, err
    assert len(stations_here.made) == 1  # sides of one place share a process
    sentences = [line for line in out.splitlines() if line.startswith(SIDES[0] + " on ")]
    assert any(line.startswith(f"{SIDES[0]} on chatx6n3, kv_kept_fraction: ") for line in sentences)
    assert any("on chatx4n2, whole requests: " in line and "kv_full" in line for line in sentences)
    assert all(words in out for words in ("A to B", "noise floor", f"{SIDES[0]} against kv_full, one process"))
    assert "equal on both sides: forwards" in out  # what is equal is not a sentence each
    assert "note: no noise floor is known for this machine (zoo doctor --noise measures it)" in out
    assert "chatx6n3" in err


def test_json_is_one_document_with_the_floor(zoo, stations_here, noise_known):
    noise_known(0.25)
    code, out, _ = zoo("compare", *SIDES, *TINY, "--decode", "chatx6n3", "--json")
    document = json.loads(out)
    lines = {line["metric"]: line for line in document["lines"]}
    assert code == 0 and (document["first"], document["second"]) == SIDES
    assert document["noise"]["model"] == "tiny-random" and lines["speedup_total"]["floor"] == 0.25
    assert lines["kv_bytes_held"]["verdict"] == "better" and lines["kv_bytes_held"]["first"] > 0
    assert lines["speedup_total"]["low"] <= lines["speedup_total"]["value"] <= lines["speedup_total"]["high"]
    assert lines["forwards"]["verdict"] == "no difference" and lines["forwards"]["value"] == 1


def test_another_interpreter_is_another_process(zoo, stations_here):
    code, out, _ = zoo("compare", "ar", *TINY, "--python-b", "another", "--decode", "chatx2n1")
    assert code == 0 and "ar against ar (B), two processes" in out
    assert [station.place.python for station in stations_here.made] == [sys.executable, "another"]


def test_workloads_that_both_have(zoo, stations_here):
    code, _, err = zoo("compare", "kv_full", "ar", *TINY, "--workloads")
    assert code == 4 and "kv_full and ar have no workload in common" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("ar",), 2, "both sides are the same; give another method, --model-b, --revision-b or --python-b"),
        (("ar", "ar"), 2, "both sides are the same"),
        (("kv_ful", "ar"), 2, "did you mean 'kv_full'"),
        (("ar", "prompt_lokup"), 2, "did you mean 'prompt_lookup'"),
        (("ar", "prompt_lookup@ngram_mx=3"), 2, "did you mean"),
        (("ar", "kv_full", "--model", "tiny-randm"), 2, "did you mean 'tiny-random'"),
        (("ar", "kv_full", "--decode", "chat x"), 2, "cannot read decode workload"),
        (("ar", "--revision-b", "no-such-revision"), 2, "'no-such-revision' is no revision"),
        (("ar", "kv_full", "--energy", "-1"), 2, "'--energy'"),
    ],
)
def test_what_is_wrong_is_one_line(zoo, stations_here, words, code, line):
    model = () if "--model" in words else TINY[:2]
    found, out, err = zoo("compare", *words, *model, "--device", "cpu")
    last = err.splitlines()[-1]
    assert (found, out) == (code, "") and last.startswith("zoo: ") and line in last and "Traceback" not in err


@pytest.fixture
def asked(monkeypatch, tmp_path, zoo):
    """What the measuring part is asked; ``asked(words)`` gives both sides and the question."""
    monkeypatch.setattr(revision, "unpack", lambda name, folder: Revision("c" * 40, tmp_path / name))

    def call(*words):
        got = []

        def measure(first, second, ask, log, tell):
            got.extend((first, second, ask, log))
            raise EnvironmentFailed(f"see {log}")

        monkeypatch.setattr(module, "compare", measure)
        code, _, err = zoo("compare", *words)
        assert code == 4 and got, err
        return got

    return call


def test_sides_are_methods_models_or_revisions(asked, tmp_path):
    one, other, _, _ = asked("ar", "prompt_lookup", *TINY, "--dtype", "float32", "--threads", "2", "--seed", "5")
    assert (one.name, one.method, other.name, other.method) == ("ar", "ar", "prompt_lookup", "prompt_lookup")
    assert one.place == other.place
    assert (one.place.dtype, one.place.threads, one.place.seed) == ("float32", 2, 5)

    one, other, _, _ = asked("ar", *TINY, "--model-b", "tiny-chain-sum")
    assert (one.name, other.name) == ("ar on tiny-random", "ar on tiny-chain-sum")
    assert (one.place.model, other.place.model) == ("tiny-random", "tiny-chain-sum")

    one, other, _, _ = asked("ar", *TINY, "--revision-a", "v1", "--revision-b", "v2", "--python-b", "py")
    assert (one.name, other.name) == ("ar at v1", "ar at v2")
    assert (one.place.source, other.place.source) == (str(tmp_path / "v1"), str(tmp_path / "v2"))
    assert one.place.python != other.place.python == "py"

    one, other, _, _ = asked("ar", *TINY, "--python-b", "py")
    assert (one.name, other.name) == ("ar", "ar (B)")


def test_what_is_compared(asked):
    assert asked("ar", "kv_full")[2].decode == ["chatx48n6"]
    ask = asked("ar", "kv_full", "--decode", "chatx2, prose:64x4n2", "--energy", "3")[2]
    assert (ask.decode, ask.tasks, ask.workloads, ask.energy_s) == (["chatx2", "prose:64x4n2"], [], False, 3.0)
    words = ["--tasks", "a,b", "--limit", "5", "--num_fewshot", "2", "--batch_size", "4", "--include_path", "own"]
    words += ["--seed", "3", "--workloads"]
    ask = asked("ar", "kv_full", *words)[2]
    assert (ask.decode, ask.tasks, ask.workloads) == ([], ["a", "b"], True)
    assert ask.options == {
        "limit": 5.0,
        "num_fewshot": 2,
        "batch_size": 4,
        "include_path": [str(Path("own").absolute())],  # a process of a revision works in another folder
        "seed": 3,
    }


def test_the_log_is_kept_where_an_error_names_it_and_else_removed(asked, zoo, stations_here, monkeypatch):
    real = module.compare
    log = asked("ar", "kv_full")[3]
    assert log.is_file()
    log.unlink()
    monkeypatch.setattr(module, "compare", real)
    assert zoo("compare", *SIDES, *TINY, "--decode", "chatx2n1")[0] == 0
    assert [station.log.exists() for station in stations_here.made] == [False]


def test_documents_are_paired(zoo, stations_here, monkeypatch):
    def answers(self, method, task, options):
        right = 40 if method == "ar" else 4
        return [{"unit": unit, "name": "acc", "value": float(unit < right)} for unit in range(40)]

    monkeypatch.setattr(Station, "quality", answers)
    code, out, _ = zoo("compare", "ar", "kv_full", *TINY, "--tasks", "tiny_choice")
    assert code == 0
    assert "ar on tiny_choice, acc: better against kv_full, +0.9 [" in out and "on 40 documents" in out
