"""A whole gate: processes of both sides, trials that fail alone, alarms that must repeat, and the exit code."""

import json
import math
from dataclasses import replace

import pytest

from harness.catalog.spec import parse_stack
from harness.errors import EnvironmentFailed, Refused, UsageError
from harness.gate import run
from harness.gate.finding import FAILED, NOT_JUDGED, OUTCOMES, Finding, Report, ordered
from harness.gate.policy import parse_policy
from harness.gate.run import Sides, machine_noise, run_gate
from harness.gate.session import Request, hold_gate
from harness.kinds.checking import check_cached
from harness.measure.machine import machine_key
from harness.measure.noise import Floor, NoiseFloor, write_noise
from harness.run.lockstep import Place
from harness.stats.sequential import INCONCLUSIVE, PASS, REGRESSION

HEAD, BASE = Place("tiny-random"), Place("tiny-random", source="base")
BOTH = Sides(HEAD, BASE)


def trial(method="m", **fields):
    return {"method": method, "decode": "chatx16n4", "metrics": ["speedup_total"], **fields}


def policy(*trials, **fields):
    return parse_policy({"model": "tiny-random", "trial": list(trials), **fields}, "p")


@pytest.fixture
def gate(world, tmp_path):
    """Runs a gate in the fake world; ``gate.told`` and ``gate.kept`` hold what it said and stored."""

    def call(*trials, sides=BOTH, **fields):
        call.told, call.kept = [], []
        keep = lambda asked, judged: call.kept.append((asked.name, judged))  # noqa: E731 - one line reads better
        return run_gate(policy(*trials, **fields), sides, tmp_path / "log", call.told.append, keep)

    return call


def by_trial(report):
    return {f.trial.split(" ")[0]: f for f in report.findings}


def test_equal_sides_pass_and_the_report_says_what_it_rests_on(gate, noise):
    report = gate(trial("a"), trial("b", metrics=["forwards", "speedup_cpu"]))
    assert report.outcome == PASS and [f.metric for f in report.findings] == [
        "speedup_total",
        "forwards",
        "speedup_cpu",
    ]
    assert (report.machine, report.machine_label) == ("m1", "a CPU")
    assert report.floors["two processes"]["wall"]["value"] == 0.01
    assert report.policy["false_alarm"] == 0.01 and report.environment["versions"] == {"torch": "2"}
    assert gate.told == ["a on chatx16n4", "b on chatx16n4"] == [name for name, _ in gate.kept]
    assert report.warnings == []
    write_noise(noise(busy="busy machine"))
    assert gate(trial("a")).warnings == ["the noise floor was measured on a busy machine"]


def test_a_margin_below_the_floor_is_refused_before_anything_is_measured(gate, world):
    with pytest.raises(UsageError, match=r"b on chatx16n4: a margin of 0.50% .* noise floor of 1.00%"):
        gate(trial("a"), trial("b", margins={"speedup_total": 0.005}))
    assert not world.asked and gate.kept == []


def test_a_margin_of_energy_below_its_floor_is_refused_too(gate, world, noise):
    write_noise(noise(**{"energy (counter)": 0.08}))
    with pytest.raises(UsageError, match=r"energy_per_token_decode .* floor of 8.00%"):
        gate(trial("a", metrics=["energy_per_token_decode"]))
    assert not world.asked


def test_without_a_base_every_trial_names_its_rival(gate):
    with pytest.raises(UsageError, match=r"b on chatx16n4 names no `against`.*--base"):
        gate(trial("a", against="c"), trial("b"), sides=Sides(HEAD, None))
    assert gate(trial("a", against="c"), sides=Sides(HEAD, None)).outcome == PASS


@pytest.mark.parametrize("do", ["open_decode", "visit"])
@pytest.mark.parametrize("error", [EnvironmentFailed("killed"), Refused("ended early")])
def test_one_bad_trial_leaves_the_findings_of_the_others(gate, world, do, error):
    for side in ("head", "base"):
        world.plant(side, "bad", fails={do: error})
    report = gate(trial("a"), trial("bad", metrics=["forwards", "speedup_cpu"]), trial("b"))
    assert [f.outcome for f in report.findings] == [PASS, FAILED, FAILED, PASS]
    assert all(str(error) in f.note for f in report.findings if f.outcome == FAILED)
    assert (report.outcome, report.exit_code(False)) == (FAILED, 4)


def test_a_process_that_died_is_started_anew_for_the_next_trial(gate, world):
    world.plant("head", "bad", fails={"visit": EnvironmentFailed("killed")})
    assert by_trial(gate(trial("bad"), trial("b")))["b"].outcome == PASS
    assert world.starts == {HEAD: 2, BASE: 1}


def test_a_candidate_that_cannot_open_is_a_regression_with_its_reason(gate, world):
    world.plant("head", "bad", fails={"open_decode": EnvironmentFailed("no such layer")})
    report = gate(trial("bad"), trial("b"))
    assert by_trial(report)["bad"].outcome == REGRESSION and "no such layer" in by_trial(report)["bad"].note
    assert by_trial(report)["b"].outcome == PASS and report.exit_code(False) == 1


def test_a_name_that_both_sides_lack_ends_the_gate(gate, world):
    for side in ("head", "base"):
        world.plant(side, "bad", fails={"open_decode": UsageError("unknown method 'bad'")})
    with pytest.raises(UsageError, match="unknown method 'bad'"):
        gate(trial("a"), trial("bad"))
    assert [name for name, _ in gate.kept] == ["a on chatx16n4"]  # what was measured is stored


def test_a_method_that_the_base_lacks_fails_alone(gate, world):
    world.plant("base", "new", fails={"open_decode": UsageError("unknown method 'new'")})
    found = by_trial(gate(trial("new"), trial("b")))
    assert found["new"].outcome == FAILED and "fails on the baseline's: unknown method" in found["new"].note
    assert found["b"].outcome == PASS


def test_an_alarm_that_fresh_processes_do_not_repeat_is_inconclusive(gate, world):
    world.plant("head", "m", slow=lambda start: 1.3 if start == 1 else 1.0)
    report = gate(trial())
    (found,) = report.findings
    assert found.outcome == INCONCLUSIVE and found.note == "an alarm that fresh processes did not repeat"
    assert abs(found.value) < 0.05 and world.starts == {HEAD: 2, BASE: 2}
    assert (report.exit_code(False), report.exit_code(True)) == (0, 3)


def test_an_alarm_that_comes_twice_is_a_regression(gate, world):
    world.plant("head", "m", slow=1.3)
    (found,) = gate(trial()).findings
    assert (found.outcome, found.note) == (REGRESSION, "seen twice, in fresh processes")
    assert world.starts == {HEAD: 2, BASE: 2}
    ((_, judged),) = gate.kept
    assert len(judged.blocks) == found.n * 2  # both rounds are kept


def test_only_what_alarmed_is_judged_anew(gate, world):
    world.plant("head", "m", slow=lambda start: 1.3 if start == 1 else 1.0, counts={"forwards": 17.0})
    found = {f.metric: f for f in gate(trial(metrics=["forwards", "speedup_total", "peak_memory_bytes"])).findings}
    assert [found[m].outcome for m in found] == [REGRESSION, INCONCLUSIVE, PASS]
    assert found["forwards"].note == ""


def test_a_first_alarm_is_believed_within_one_process(gate, world):
    world.plant("head", "m", slow=1.3)
    (found,) = gate(trial(against="r"), sides=Sides(HEAD, None)).findings
    assert found.outcome == REGRESSION and found.note == "" and world.starts == {HEAD: 1}


def test_counts_alone_need_no_second_round(gate, world):
    world.plant("head", "m", counts={"forwards": 17.0})
    assert gate(trial(metrics=["forwards"])).outcome == REGRESSION and world.starts == {HEAD: 1, BASE: 1}


def test_sides_that_see_different_machines_are_not_compared(gate, world):
    world.machines["base"] = "m2"
    (found,) = gate(trial()).findings
    assert found.outcome == FAILED and "different machines" in found.note and world.count("visit") == 0


def test_a_trial_may_have_a_model_of_its_own(gate, world):
    gate(trial("a"), trial("b", model="other"))
    assert {place.model for place in world.starts} == {"tiny-random", "other"}
    assert {place.source for place in world.starts if place.model == "other"} == {"", "base"}


def test_an_unknown_floor_is_measured_first(world, monkeypatch, tmp_path, noise):
    made = []
    monkeypatch.setattr("harness.gate.run.measure_noise", lambda place, *_: made.append(place) or noise("m9"))
    world.machines[""] = "m9"
    told = []
    with run.fleet(tmp_path / "log") as ships:
        found = machine_noise(replace(HEAD, model="big", dtype="bfloat16"), ships, told.append)
    assert found.machine == "m9" and (made[0].model, made[0].dtype) == ("tiny-random", None)
    assert "measuring it first" in told[0]


def test_what_a_gate_measured_is_stored_visit_by_visit(world, tmp_path):
    world.plant("head", "m", slow=1.3)
    request = Request(
        policy=policy(trial(against="r"), trial("a", against="b", metrics=["forwards"])),
        base="HEAD",
        repository=tmp_path / "no repository",
        base_python="python",
        reference=None,
        force=False,
        device="cpu",
        results=tmp_path / "results",
    )
    report = hold_gate(request, lambda _: None)
    assert (report.candidate, report.baseline) == ("each method", "its rival")
    (folder,) = (tmp_path / "results" / "gates").iterdir()
    document = json.loads((folder / "gate.json").read_text())
    assert document["outcome"] == REGRESSION and len(document["findings"]) == 2
    first, second = (json.loads(p.read_text()) for p in sorted(folder.glob("trial-*.json")))
    assert (first["trial"]["method"], second["trial"]["method"]) == ("m", "a")
    assert len(first["visits"]) == 4 * first["findings"][0]["n"]
    times = {
        side: min(v["total_s"] for v in first["visits"] if v["side"] == side) for side in ("candidate", "baseline")
    }
    assert times["candidate"] / times["baseline"] == pytest.approx(1.3, rel=0.1)
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailed, match="give --output_path"):
        hold_gate(replace(request, results=tmp_path / "file"), lambda _: None)


@pytest.mark.parametrize(
    ("outcomes", "code", "strict"),
    [
        ([PASS, PASS], 0, 0),
        ([PASS, REGRESSION, INCONCLUSIVE], 1, 1),
        ([PASS, INCONCLUSIVE], 0, 3),
        ([PASS, FAILED], 4, 4),
        ([REGRESSION, FAILED], 1, 1),
        ([FAILED, FAILED], 4, 4),
        ([PASS, NOT_JUDGED], 0, 0),
        ([NOT_JUDGED], 4, 4),
        ([], 4, 4),
    ],
)
def test_the_exit_code_follows_from_the_worst(outcomes, code, strict):
    report = Report(findings=[Finding(trial="t", metric="speedup_total", outcome=o) for o in outcomes])
    assert (report.exit_code(strict=False), report.exit_code(strict=True)) == (code, strict)
    assert [f.outcome for f in ordered(report.findings)] == sorted(outcomes, key=OUTCOMES.index)


def test_a_gate_of_real_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    assert all(result.passed for result in check_cached(parse_stack("ar").specs[0]))  # else each process would
    wide = Floor(0.01, -0.01, 0.01, 12)
    floors = {"one process": {"wall": wide, "cpu": wide, "memory": wide}}
    write_noise(NoiseFloor(machine_key().digest, "here", "tiny-random", "2026-01-01", None, floors))
    metrics = ["forwards", "kv_bytes_held", "speedup_total"]
    small = {"method": "ar", "against": "ar", "decode": "chatx4n2", "budget_s": 1.5, "metrics": metrics}
    asked = policy(
        {**small, "margins": {"speedup_total": 9.0}}, {**small, "decode": "nosuchx4n2", "metrics": []}, margin=0.5
    )
    kept = []
    with pytest.raises(UsageError, match="nosuch"):
        run_gate(
            asked,
            Sides(Place("tiny-random", "cpu"), None),
            tmp_path / "log",
            lambda _: None,
            lambda _, judged: kept.extend(judged.findings),
        )
    forwards, held, clock = kept
    assert [f.metric for f in kept] == metrics and {f.outcome for f in kept} == {PASS}
    assert forwards.sides == (4.0, 4.0) and held.value == 0.0 and held.sides[0] > 0
    assert clock.n >= 12 and math.isfinite(clock.value) and clock.floor == 0.01
