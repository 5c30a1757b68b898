"""A gate against a stored run: only on its machine, only where every trial is there, and absolute times decide."""

import json
import math
import random

import pytest

from harness.errors import EnvironmentFailed, UsageError
from harness.gate.finding import DIFFERENCE, FAILED, NOT_JUDGED
from harness.gate.policy import parse_policy
from harness.gate.session import Request, hold_gate
from harness.gate.stored import run_against_stored
from harness.measure.noise import write_noise
from harness.records.schema import TrialRecord
from harness.records.store import RunFolder
from harness.run.lockstep import Place
from harness.stats.sequential import INCONCLUSIVE, PASS, REGRESSION

HEAD = Place("tiny-random")
SEED = 5


@pytest.fixture
def reference(tmp_path):
    """Writes records; ``reference(kind="cost", slow=2.0)`` adds one trial to the run."""
    run = RunFolder.create(tmp_path / "old", "r1", {})

    def call(
        method="ar", target="chatx16n6", kind="cost", machine="m1", status="ok", dtype=None, samples=None, started="1"
    ):
        trial = {
            "trial_id": f"{kind}-{method}-{target}-{started}",
            "kind": kind,
            "method_kind": "decoding",
            "method": method,
            "baseline": "ar",
            "model": "tiny-random",
            "target": target,
            "dtype": dtype,
            "device": "auto",
            "options": {"limit": 4, "num_fewshot": None, "batch_size": 8, "include_path": [], "log_samples": True},
            "threads": 1,
            "seed": 0,
        }
        rows = times() if samples is None else samples
        run.store(
            TrialRecord(trial=trial, status=status, started=started, environment={"machine": machine}, samples=rows)
        )
        return tmp_path / "old"

    return call


def times(slow=1.0, noise=0.01, units=6):
    """Raw samples of a cost trial on the fake world's clock, both sides, each unit twice."""
    dice = random.Random(SEED)
    return [
        {
            "side": side,
            "unit": unit,
            "name": name,
            "value": slow * 0.05 * (1 + unit / 10) * math.exp(dice.gauss(0, noise)),
        }
        for side in ("candidate", "baseline")
        for unit in range(units)
        for name in ("total_s", "cpu_s")
        for _ in range(2)
    ]


def documents(values, name="exact_match"):
    return [{"side": "document", "unit": u, "name": name, "value": v} for u, v in enumerate(values)]


def policy(*trials, **fields):
    decode = {"method": "ar", "decode": "chatx16n6", "metrics": ["speedup_total"]}
    tables = [{k: v for k, v in {**decode, **trial}.items() if v} for trial in trials or ({},)]
    return parse_policy({"model": "tiny-random", "margin": 0.1, "trial": tables, **fields}, "p")


@pytest.fixture
def gate(world, tmp_path):
    """Runs a gate against the records in ``tmp_path / "old"``."""
    world.noise = 0.01

    def call(asked, force=False):
        return run_against_stored(asked, HEAD, tmp_path / "old", force, tmp_path / "log", lambda _: None)

    return call


def test_the_same_times_pass_on_a_coarse_margin(gate, reference):
    reference()
    report = gate(policy({"metrics": ["speedup_total", "speedup_cpu"]}))
    assert [f.outcome for f in report.findings] == [PASS, PASS] and report.warnings == []
    found = report.findings[0]
    assert abs(found.value) < 0.03 and found.n == 6 and found.low < found.value < found.high < found.margin == 0.1
    assert report.floors["two processes"]["wall"]["value"] == found.floor == 0.01


def test_doubled_times_are_a_regression(gate, world, reference):
    reference()
    world.plant("head", "ar", slow=2.0)
    (found,) = gate(policy()).findings
    assert found.outcome == REGRESSION and found.value == pytest.approx(1.0, abs=0.1)
    assert world.count("visit") == 18


def test_of_each_prompt_the_quickest_visit_counts(gate, reference):
    samples = times()
    for row in samples[::2]:
        row["value"] *= 3  # a burst hits every other visit
    reference(samples=samples)
    (found,) = gate(policy()).findings
    assert found.outcome == PASS and abs(found.value) < 0.03


def test_what_noise_hides_is_inconclusive(gate, world, reference):
    world.noise = 0.5
    reference(samples=times(noise=0.5))
    assert gate(policy()).findings[0].outcome == INCONCLUSIVE


def test_one_prompt_cannot_carry_an_interval(gate, reference):
    reference(target="chatx16n1", samples=times(units=1))
    (found,) = gate(policy({"decode": "chatx16n1"})).findings
    assert (found.outcome, found.low, found.high) == (INCONCLUSIVE, None, None)


def test_another_machine_is_refused_unless_forced(gate, world, reference):
    reference(machine="m2")
    with pytest.raises(UsageError, match=r"measured on machine m2, this is m1: .*--base\) or --force"):
        gate(policy())
    assert world.asked == []
    report = gate(policy(), force=True)
    assert report.outcome == PASS and report.warnings == ["forced: the reference comes from another machine (m2)"]


def test_quality_does_not_depend_on_the_machine(gate, world, reference):
    reference(kind="quality", target="t", machine="m2", samples=documents([1.0, 0.0] * 50))
    (found,) = gate(policy({"decode": "", "task": "t", "metrics": ["exact_match"]})).findings
    assert (found.outcome, found.form, found.note) == (PASS, DIFFERENCE, "equal on all 100 documents")
    ((_, _, asked),) = [entry for entry in world.asked if entry[1] == "quality"]
    assert asked["options"]["limit"] == 4 and "log_samples" not in asked["options"]  # as stored, not as in the policy


def test_a_planted_loss_of_quality_is_a_regression(gate, reference):
    reference(kind="quality", target="t", samples=documents([1.0] * 100))
    (found,) = gate(policy({"decode": "", "task": "t", "metrics": ["exact_match"]})).findings
    assert found.outcome == REGRESSION and found.value == -0.5


@pytest.mark.parametrize(
    ("stored", "asked", "command"),
    [
        ({"method": "kv_full"}, {}, "zoo run --method 'ar' --model tiny-random --decode chatx16n6`"),
        ({"target": "chatx16n5"}, {}, "--decode chatx16n6`"),
        ({"status": "crashed"}, {}, "--decode chatx16n6`"),
        ({}, {"model": "other"}, "--model other --decode"),
        ({}, {"decode": "", "task": "t", "metrics": ["exact_match"]}, "--model tiny-random --tasks t`"),
    ],
)
def test_a_missing_trial_is_one_line_with_the_command_that_makes_it(gate, world, reference, stored, asked, command):
    reference(**stored)
    with pytest.raises(UsageError, match="holds no finished trial ar on") as caught:
        gate(policy(asked))
    assert command in str(caught.value) and "\n" not in str(caught.value) and world.asked == []


def test_a_trial_of_another_dtype_is_not_the_reference(gate, reference):
    reference(dtype="float64")
    with pytest.raises(UsageError, match="holds no finished trial"):
        gate(policy())
    with pytest.raises(UsageError, match=r"--decode chatx16n6 --dtype bfloat16`"):
        gate(policy(dtype="bfloat16"))
    assert gate(policy(dtype="float64")).outcome == PASS


def test_all_trials_must_be_there_before_one_is_measured(gate, world, reference):
    reference()
    with pytest.raises(UsageError, match="no finished trial kv_full"):
        gate(policy({}, {"method": "kv_full"}))
    assert world.asked == []


def test_an_empty_reference_is_one_line(gate):
    with pytest.raises(EnvironmentFailed, match="no records under"):
        gate(policy())


def test_workloads_need_a_live_base(gate, reference):
    reference()
    with pytest.raises(UsageError, match=r"workloads are judged against a live base only \(--base\)"):
        gate(policy({}, {"decode": "", "workload": "attention", "metrics": ["speedup"]}))


def test_a_margin_below_the_floor_is_refused_before_anything_is_measured(gate, world, reference, noise):
    reference()
    write_noise(noise(wall=0.2))
    with pytest.raises(UsageError, match=r"margin of 10.00% .* noise floor of 20.00%"):
        gate(policy())
    assert world.asked == []


def test_the_newest_record_counts_and_a_rival_is_looked_up_by_its_own_name(gate, reference):
    reference(samples=times(slow=0.2), started="1")
    reference(started="2")
    reference(method="kv_full", samples=times(slow=0.5))
    report = gate(policy({}, {"against": "kv_full"}))
    assert [f.outcome for f in report.findings] == [PASS, REGRESSION]


def test_a_method_is_found_however_it_is_written(gate, reference):
    reference(method="kv_streaming@keep_ratio=0.5")
    assert gate(policy({"method": "kv_streaming@keep_ratio=0.50"})).outcome == PASS
    with pytest.raises(UsageError, match="did you mean"):
        gate(policy({"method": "kv_streamin"}))


def test_counts_and_memory_are_not_judged_against_records(gate, reference):
    reference()
    report = gate(policy({"metrics": ["forwards", "peak_memory_bytes", "speedup_total"]}))
    outcomes = {f.metric: f.outcome for f in report.findings}
    assert outcomes == {"speedup_total": PASS, "forwards": NOT_JUDGED, "peak_memory_bytes": NOT_JUDGED}


def test_one_bad_trial_leaves_the_findings_of_the_others(gate, world, reference):
    reference()
    reference(method="kv_full")
    world.plant("head", "kv_full", fails={"open_decode": EnvironmentFailed("killed")})
    report = gate(policy({"method": "kv_full"}, {}))
    assert [(f.outcome, f.note) for f in report.findings] == [(FAILED, "killed"), (PASS, "")]


def test_a_stored_reference_is_named_in_the_report(world, reference, tmp_path):
    world.noise = 0.01
    path = reference()
    request = Request(policy(), "HEAD", tmp_path, "python", path, False, "auto", tmp_path / "results")
    report = hold_gate(request, lambda _: None)
    assert (report.candidate, report.baseline) == ("this checkout", f"the run stored in {path}")
    (document,) = (tmp_path / "results").rglob("gate.json")
    assert json.loads(document.read_text())["outcome"] == PASS
