"""The method kvpress: what is asked of its process and what is made of the answers; slow tests ask the real one."""

import json
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.catalog.spec import MethodSpec, parse_stack
from harness.errors import EnvironmentFailed, Refused, UsageError
from harness.kinds.checking import run_checks
from harness.kinds.pruning.foreign.process import VARIABLE
from harness.kinds.stack import applied
from harness.subjects.requests import GenerateRequest, Score, ScoreRequest
from methods.pruning.kvpress import KvPress

PYTHON = os.environ.get(VARIABLE, "")
FAKE = """#!{python}
import json, os, sys
version, log = "0.5.5", open(sys.argv[0] + ".log", "a")
for line in sys.stdin:
    asked = json.loads(line)
    do, given = asked["do"], asked["with"]
    if do == "load":
        given["files"] = sorted(os.listdir(given["folder"]))
    print(json.dumps([do, given]), file=log, flush=True)
    if do == "load":
        answer = {{"kvpress": version, "transformers": "5.2.0"}}
    elif do == "press":
        keep, answer = given["keep_ratio"], None
    elif do == "prefill":
        seen = len(given["context"])
        slots = int(keep * seen)
        answer = {{"next": given["context"][-1] + 1, "slots": slots, "bytes": 10 * slots}}
    elif do == "step":
        slots += 1
        answer = {{"next": given["token"] + 1, "slots": slots, "bytes": 10 * slots}}
    elif do == "score":
        answer = [[-1.5 * len(c), c[0] == 9] for c in given["continuations"]]
    {twist}
    print(json.dumps({{"ok": answer}}), flush=True)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Stand-ins for the other interpreter: the next token is the last one plus one. Returns what it was asked."""

    def make(twist="pass"):
        script = tmp_path / "python"
        script.write_text(FAKE.format(python=sys.executable, twist=twist), encoding="utf-8")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv(VARIABLE, str(script))
        log = tmp_path / "python.log"
        return lambda: [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]

    return make


def test_the_process_gets_the_weights_and_the_press(tiny, fake):
    asked = fake()
    with KvPress(press="AdaKV(SnapKV(window_size=8))", keep_ratio=0.25).apply(tiny):
        pass
    (load, given), (press, options) = asked()
    assert (load, press) == ("load", "press")
    assert {"config.json", "model.safetensors"} <= set(given["files"])
    assert (given["dtype"], given["device"]) == ("float32", "cpu")
    assert not Path(given["folder"]).exists()
    inner = {"name": "SnapKVPress", "options": {"window_size": 8}}
    assert options == {"spec": {"name": "AdaKVPress", "options": {}, "inner": inner}, "keep_ratio": 0.25}


def test_a_context_is_read_once_and_scores_come_back_in_order(tiny, fake):
    asked = fake()
    pairs = [((1, 2), (9,)), ((3,), (4, 5)), ((1, 2), (6, 7, 8))]
    with KvPress().apply(tiny) as pruned:
        scores = pruned.score([ScoreRequest(context=c, continuation=t) for c, t in pairs])
    assert scores == [Score(-1.5, True), Score(-3.0, False), Score(-4.5, False)]
    assert [given for do, given in asked() if do == "prefill"] == [{"context": [1, 2]}, {"context": [3]}]
    assert asked()[3] == ["score", {"continuations": [[9], [6, 7, 8]]}]


def test_decoding_stops_here_and_counts_what_the_process_holds(tiny, fake):
    fake()
    text = "0123456789"
    request = GenerateRequest(prompts=[list(text.encode()), [65]], max_new_tokens=6, stop_strings=("<",))
    with KvPress(keep_ratio=0.5).apply(tiny) as pruned:
        first, second = pruned.generate(request)
    assert (first.text, first.stop_reason) == (":;", "stop")
    assert (second.text, second.stop_reason) == ("BCDEFG", "length")
    assert first.counts["kv_kept_fraction"] == (5 + 2) / (10 + 2)
    assert first.counts["kv_bytes_held"] == 70


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"temperature": 0.8}, "greedily"),
        ({"repetition_penalty": 1.2}, "greedily"),
        ({"forced": [[1, 2]]}, "greedily"),
        ({"ignore_eos": True}, "only its quality is measured"),
    ],
)
def test_sampling_forced_and_timed_requests_are_refused(tiny, fake, change, why):
    fake()
    with KvPress().apply(tiny) as pruned, pytest.raises(Refused, match=why):
        pruned.generate(GenerateRequest(prompts=[[1]], max_new_tokens=2, **change))


def test_the_probe_says_what_is_held_after_prose(tiny, fake, calibration):
    asked, corpus = fake(), calibration[0]["corpus"]
    (probe,) = KvPress(keep_ratio=0.25).probes()
    with KvPress(keep_ratio=0.25).apply(tiny) as pruned:
        figures = {m.metric: m.value for m in replace(probe, corpus=corpus, texts=2, tokens=40).measure(pruned)}
    assert figures == {"kv_kept_fraction": 0.25, "kv_bytes_held": 100}
    assert [len(given["context"]) for do, given in asked() if do == "prefill"] == [40, 40]


def test_without_an_environment_it_says_how_to_make_one(tiny, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    for ask in (lambda: KvPress().apply(tiny).__enter__(), lambda: run_checks(KvPress(), tiny)):
        with pytest.raises(Refused, match=r"make_environment.sh kvpress FOLDER.*ZOO_KVPRESS_PYTHON=FOLDER/bin/python"):
            ask()
    monkeypatch.setenv(VARIABLE, "/nowhere/python")
    with pytest.raises(Refused, match="is no interpreter"):
        run_checks(KvPress(), tiny)


@pytest.mark.parametrize(
    ("twist", "error", "why"),
    [
        ("version = answer['kvpress'] = '0.4.0' if do == 'load' else version", Refused, "0.5.5 is asked for, .*0.4.0"),
        ("raise SystemExit('no torch')", EnvironmentFailed, "process ended: no torch"),
        ("print(json.dumps({'refused': 'too short'}), flush=True); continue", Refused, "kvpress: too short"),
    ],
)
def test_what_goes_wrong_there_is_one_line_here(tiny, fake, twist, error, why):
    fake(twist)
    with pytest.raises(error, match=why), KvPress().apply(tiny):
        pass


def test_its_checks_find_a_process_that_drops_nothing(tiny, fake):
    """The stand-in's scores are not the model's, and a press that keeps all breaks its budget."""
    fake("slots = seen if do == 'prefill' else 0; answer = answer if do != 'prefill' else {**answer, 'slots': seen}")
    outcomes = {result.name: result.outcome for result in run_checks(KvPress(), tiny)}
    assert outcomes["identity equals baseline"] == outcomes["budget is held"] == "failed"
    assert outcomes["restored after exit"] == outcomes["restored after an exception"] == "passed"


def test_it_stands_alone_in_a_stack(tiny, fake):
    fake()
    for stack in ("kv_snapkv+kvpress", "kvpress+token_recycling", "native+kvpress"):
        with pytest.raises(Refused, match="cannot follow"), applied(parse_stack(stack).build(), tiny):
            pass


def test_a_press_that_cannot_be_read_is_a_mistake_of_the_user():
    with pytest.raises(UsageError, match="cannot read the press 'SnapKV,TOVA'"):
        MethodSpec.parse("kvpress@press=SnapKV,TOVA").build()
    text = str(MethodSpec.parse("kvpress@press=AdaKV(SnapKV(window_size=8))"))
    assert MethodSpec.parse(text).build().press == "AdaKV(SnapKV(window_size=8))"


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason=f"{VARIABLE} names no interpreter (ci/peers/make_environment.sh)")
@pytest.mark.parametrize("press", ["SnapKV(window_size=8)", "AdaKV(SnapKV(window_size=8))", "ObservedAttention"])
def test_all_checks_hold_for_kvpress_itself(tiny, press):
    assert [r for r in run_checks(KvPress(press=press), tiny) if not r.passed] == []


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason=f"{VARIABLE} names no interpreter (ci/peers/make_environment.sh)")
@pytest.mark.parametrize(
    ("press", "why"),
    [("Nothing", "kvpress has no NothingPress; it has"), ("ThinK", "takes no compression ratio")],
)
def test_presses_that_kvpress_cannot_make_are_refused(tiny, press, why):
    with pytest.raises(Refused, match=why), KvPress(press=press).apply(tiny):
        pass
