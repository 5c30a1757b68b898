"""What a station does when it is asked, in this process: decode and other workloads, counts, quality by document."""

import json
import subprocess

import pytest
import torch

from harness.errors import CheckFailed, Refused, UsageError
from harness.kinds import checking
from harness.kinds.checking import CheckResult
from harness.kinds.method import Measurement, Workload
from harness.run import perform
from harness.run import station as module
from harness.run.station import Station
from harness.run.suite import DecodeSpec

DECODE = DecodeSpec(prompts="chat", new_tokens=12, count=3).model_dump()
CLOCKS = {"total_s", "ttft_s", "decode_s", "cpu_s"}


@pytest.fixture(scope="module")
def loaded():
    """A station with the tiny model."""
    made = Station()
    made.hello = made.load("tiny-random", "cpu", None, 1, 0, [])
    return made


@pytest.fixture
def station(loaded, monkeypatch):
    """The same, with methods whose invariants are known to hold."""
    monkeypatch.setattr(module, "check_apart", lambda stack: None)
    monkeypatch.setattr(perform, "check_cached", lambda spec: [CheckResult("a", "passed")])
    return loaded


def counts(visit):
    return {name: value for name, value in visit.items() if name not in CLOCKS}


def test_a_station_says_who_answers(loaded):
    from harness.measure.machine import machine_key

    key = machine_key()
    assert (loaded.hello["machine"], loaded.hello["machine_label"]) == (key.digest, key.label)
    assert (loaded.hello["device"], loaded.hello["dtype"]) == ("cpu", "float32")
    assert loaded.hello["versions"]["torch"] == torch.__version__ and loaded.hello["protocol"] == module.PROTOCOL
    assert json.loads(json.dumps(loaded.hello)) == loaded.hello


@pytest.mark.parametrize(("model", "dtype"), [("tiny-randm", None), ("tiny-random", "float31")])
def test_a_wrong_model_or_type_is_refused(model, dtype):
    with pytest.raises(UsageError, match=r"tiny-random|float32"):
        Station().load(model, "cpu", dtype, 1, 0, [])


def test_no_method_is_the_bare_model(station):
    assert station.open_decode("bare", "", DECODE) == {"units": 3}
    station.open_decode("ar", "ar", DECODE)
    for unit in range(3):
        bare = station.visit("bare", unit)
        assert counts(bare) == counts(station.visit("ar", unit))
        assert bare["forwards"] == 12 and bare["mean_accepted_tokens"] == 1
        assert all(bare[name] > 0 for name in CLOCKS)
        assert bare["ttft_s"] < bare["total_s"]


@pytest.mark.parametrize("method", ["prompt_lookup", "token_recycling@num_nodes=16", "kv_streaming@keep_ratio=0.5"])
def test_counts_are_equal_from_visit_to_visit(station, method):
    """Whatever was visited in between: a block starts from the state after the warm-up."""
    station.open_decode("a", method, DECODE)
    first = {unit: counts(station.visit("a", unit)) for unit in (0, 1, 2)}
    assert {unit: counts(station.visit("a", unit)) for unit in (2, 0, 1)} == first
    station.open_decode("b", method, DECODE)
    assert {unit: counts(station.visit("b", unit)) for unit in (0, 1, 2)} == first


def test_batches_are_units(station):
    assert station.open_decode("a", "", {**DECODE, "count": 4, "batch": 2}) == {"units": 2}


def test_peak_memory_is_that_of_an_opened_workload(station):
    station.open_decode("a", "", DECODE)
    assert station.peak_memory("a").keys() == {"peak_memory_bytes"}
    assert station.peak_memory("a")["peak_memory_bytes"] > 0


def test_energy_figures_keep_their_source(station, monkeypatch):
    from harness.measure import energy_windows

    def modelled(opened, work, window_s):
        return [Measurement("energy_per_token_decode", window_s, source="model")]

    monkeypatch.setattr(energy_windows, "decode_energy", modelled)
    station.open_decode("a", "", DECODE)
    (figure,) = station.energy("a", 3.0)
    assert (figure["metric"], figure["value"], figure["source"]) == ("energy_per_token_decode", 3.0, "model")


@pytest.mark.parametrize(
    ("ask", "nearest"),
    [
        (lambda s: s.open_decode("a", "prompt_lokup", DECODE), "did you mean 'prompt_lookup'"),
        (lambda s: s.open_decode("a", "kv_streaming@keep_ration=1", DECODE), "did you mean 'keep_ratio'"),
        (lambda s: s.open_decode("a", "ar", {**DECODE, "prompts": "chatt"}), "did you mean 'chat'"),
        (lambda s: s.open_workload("a", "dualkv", "attention_p256_r32_n9"), "did you mean 'attention_p256_r32_n"),
        (lambda s: s.open_workload("a", "dualk", "x"), "did you mean 'dualkv'"),
        (lambda s: s.workloads("dualk"), "did you mean 'dualkv'"),
        (lambda s: s.quality("kv_ful", "x", {}), "did you mean 'kv_full'"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(station, ask, nearest):
    with pytest.raises(UsageError, match=nearest):
        ask(station)


def test_a_method_whose_invariants_fail_is_not_opened(station, monkeypatch):
    monkeypatch.setattr(perform, "check_cached", lambda spec: [CheckResult("it holds", "failed", "3 is more than 1")])
    for ask in (
        lambda: station.open_decode("a", "prompt_lookup", DECODE),
        lambda: station.open_workload("a", "dualkv", "attention_p256_r32_n1"),
    ):
        with pytest.raises(CheckFailed, match="fails it holds: 3 is more than 1"):
            ask()
    station.open_decode("a", "", DECODE)  # the bare model has no invariants


def test_unknown_invariants_are_checked_in_a_process_of_their_own(loaded, monkeypatch):
    from harness.catalog.spec import parse_stack

    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, **settings: ran.append((command[1:], settings["stdin"])))
    monkeypatch.setattr(checking, "known_results", lambda spec: None if spec.id == "kv_streaming" else [])
    module.check_apart(parse_stack("kv_streaming@keep_ratio=0.5+prompt_lookup"))
    spec = "kv_streaming@keep_ratio=0.5"
    assert ran == [(["-m", "harness.cli", "check", spec], subprocess.DEVNULL)]  # requests are not its to read


def test_a_real_workload_and_its_reference_are_timed(station):
    assert {"name": "attention_p256_r32_n1", "reference": True} in station.workloads("dualkv")
    assert station.workloads("ar") == []
    for reference in (False, True):
        answer = station.open_workload("a", "dualkv", "attention_p256_r32_n1", reference)
        visit = station.visit("a", 0)
        assert answer == {"units": 1} and visit.keys() == {"total_s", "cpu_s"} and min(visit.values()) > 0


@pytest.fixture
def offer(station, monkeypatch):
    """Makes a workload of given results the one that is found; gives the list of its calls."""

    def make(result, reference=None, **bounds):
        calls = []

        def side(name, value):
            return lambda: lambda: calls.append(name) or value

        other = None if reference is None else side("reference", reference)
        workload = Workload(name="w", make=side("own", result), reference=other, **bounds)
        monkeypatch.setattr(perform, "find_workload", lambda *_: workload)
        return calls

    return make


def test_a_wrong_result_gets_no_time(station, offer):
    offer(torch.ones(3), torch.zeros(3), max_error=1e-3)
    for reference in (False, True):
        with pytest.raises(CheckFailed, match=r"workload w: error .* exceeds its bound"):
            station.open_workload("a", "dualkv", "w", reference)
    offer(torch.ones(3), torch.ones(3), max_error=1e-3)
    assert station.open_workload("a", "dualkv", "w") == {"units": 1}


def test_a_workload_without_a_reference_says_so(station, offer):
    offer(torch.ones(3))
    with pytest.raises(UsageError, match="no reference of its own; name another method"):
        station.open_workload("a", "dualkv", "w", reference=True)


@pytest.mark.parametrize(("reference", "called"), [(False, "own"), (True, "reference")])
def test_a_small_operator_is_repeated_equally_often_in_each_visit(station, offer, reference, called):
    calls = offer(1.0, 1.0)
    station.open_workload("a", "dualkv", "w", reference)
    repeats = []
    for _ in range(2):
        calls.clear()
        station.visit("a", 0)
        repeats.append(len(calls))
        assert set(calls) == {called}
    assert repeats[0] == repeats[1] > 100  # a call of a microsecond, for ten milliseconds


def test_quality_is_a_value_a_document_and_metric(station, task_folder):
    options = {"limit": 5, "num_fewshot": None, "batch_size": 4, "include_path": [str(task_folder)], "seed": 0}
    rows = station.quality("kv_full", "tiny_choice", options)
    assert sorted(row["unit"] for row in rows) == list(range(5))
    assert {row["name"] for row in rows} == {"acc"} and {row["value"] for row in rows} <= {0.0, 1.0}
    assert station.quality("kv_full", "tiny_choice", options) == rows


def test_a_stack_has_no_workloads_of_its_own(station):
    with pytest.raises(Refused, match="belong to one method"):
        station.open_workload("a", "kv_streaming+prompt_lookup", "x")


def test_sides_that_do_not_share_a_process_are_not_forced_to_one_text(station):
    with pytest.raises(UsageError, match="one text"):
        station.open_decode("a", "ar", DECODE | {"forced": True})
