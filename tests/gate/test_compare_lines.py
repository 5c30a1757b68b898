"""`zoo compare`: words that follow from the figures, and one plain sentence a metric."""

import math
import random

import pytest

from harness.errors import EnvironmentFailed, Refused, UsageError
from harness.gate.compare import Ask, Side, compare
from harness.gate.lines import Comparison, clock_line, count_line, plain_line, quality_lines
from harness.measure.noise import ONE, TWO
from harness.measure.pairs import Block, PairRun
from harness.run.lockstep import Place

HERE, THERE = Place("tiny-random"), Place("tiny-random", source="base")
A, B = Side("a", "ma", HERE), Side("b", "mb", HERE)


@pytest.fixture
def about(noise):
    """A comparison to which lines belong; ``about(0.3)`` has a floor of 30 %, ``about(None)`` none."""

    def call(wall=0.01):
        return Comparison("a", "b", "m1", "a CPU", ONE, None if wall is None else noise(wall=wall))

    return call


def pairs(slow=1.0, noise=0.01, units=6, **counts):
    """Blocks of both sides; the candidate takes ``slow`` times as long. Counts are given as (candidate, baseline)."""
    dice = random.Random(3)

    def block(side, unit):
        seconds = (1 + unit / 10) * (slow if side == "candidate" else 1.0) * math.exp(dice.gauss(0, noise))
        values = {name: pair[side == "baseline"] for name, pair in counts.items()}
        result = {"total_s": seconds, "cpu_s": seconds, **{k: v for k, v in values.items() if v is not None}}
        return Block(side, unit, seconds, seconds, result)

    return PairRun([block(side, unit) for unit in range(units) for side in ("candidate", "baseline") for _ in range(2)])


@pytest.mark.parametrize(
    ("slow", "floor", "verdict", "words"),
    [
        (0.5, 0.01, "better", "times as fast as b ["),
        (2.0, 0.01, "worse", "times as fast as b, so slower ["),
        (1.0, 0.01, "no difference", "no difference from b that this run can tell ["),
        (0.8, 0.4, "no difference", "no difference from b that this run can tell ["),
        (1.25, 0.4, "no difference", "no difference from b that this run can tell ["),
        (0.8, None, "better", "times as fast as b ["),
        (1.25, None, "worse", "so slower ["),
    ],
)
def test_a_clock_has_to_stand_out_of_the_noise_floor(about, slow, floor, verdict, words):
    line = clock_line("chatx16n6", "speedup_total", pairs(slow), "total_s", about(floor))
    assert line.verdict == verdict and words in line.sentence and line.floor == floor
    assert line.sentence.startswith("a on chatx16n6, whole requests: ")
    assert line.value == pytest.approx(1 / slow, rel=0.03) and line.low < line.value < line.high and line.n == 6
    assert line.first / line.second == pytest.approx(slow, rel=0.03) and line.second == pytest.approx(1250, rel=0.03)


def test_each_clock_has_its_own_floor(noise, about):
    found = about()
    found.noise = noise(wall=0.01, cpu=0.9)
    lines = [clock_line("t", "s", pairs(0.8), clock, found) for clock in ("total_s", "cpu_s")]
    assert [line.verdict for line in lines] == ["better", "no difference"] and "CPU time" in lines[1].sentence


def test_one_unit_has_no_interval_and_no_verdict(about):
    line = clock_line("t", "s", pairs(3.0, units=1), "total_s", about())
    assert (line.verdict, line.low) == ("no difference", None) and "(one unit: no interval)" in line.sentence


@pytest.mark.parametrize(
    ("name", "values", "verdict", "words"),
    [
        ("forwards", (12.0, 16.0), "better", "12 against 16 of b"),
        ("forwards", (17.0, 16.0), "worse", "17 against 16 of b"),
        ("forwards", (16.0, 16.0), "no difference", "16 against 16 of b"),
        ("mean_accepted_tokens", (2.5, 1.0), "better", "2.5 against 1 of b"),
        ("mean_accepted_tokens", (0.5, 1.0), "worse", "0.5 against 1 of b"),
        ("kv_bytes_held", (2048.0, 4096.0), "better", "2 KiB against 4 KiB of b"),
    ],
)
def test_a_count_is_exact(about, name, values, verdict, words):
    line = count_line("t", name, pairs(**{name: values}), about())
    assert (line.verdict, line.source, line.floor) == (verdict, "count", None)
    assert line.sentence == f"a on t, {name}: {words}"
    assert line.value == pytest.approx(values[0] / values[1]) and (line.first, line.second) == values


def test_a_count_that_a_side_lacks_is_no_line(about):
    assert count_line("t", "kv_bytes_held", pairs(kv_bytes_held=(1.0, None)), about()) is None


def test_memory_within_its_floor_is_equal_and_a_model_is_no_verdict(about):
    assert plain_line("t", "peak_memory_bytes", 101.0, 100.0, about(), "count").verdict == "no difference"
    worse = plain_line("t", "peak_memory_bytes", 150.0, 100.0, about(), "count")
    assert (worse.verdict, worse.floor) == ("worse", 0.02)
    line = plain_line("t", "energy_per_token_decode", 9.0, 1.0, about(), "model")
    assert line.verdict == "not judged" and line.sentence.endswith("of b, modelled, never a verdict")
    assert plain_line("t", "energy_per_token_decode", 9.0, 1.0, about(), "counter").verdict == "worse"
    assert plain_line("t", "forwards", 1.0, 0.0, about(), "count").value is None


def right(n, of=100):
    return [1.0] * n + [0.0] * (of - n)


def test_quality_in_words():
    series = [
        ("t", "exact_match", right(60), right(90)),
        ("t", "bits_per_byte", [1.0 + i / 100 for i in range(40)], [1.5 + i / 90 for i in range(40)]),
        ("u", "exact_match", right(50), right(50)),
    ]
    worse, better, same = quality_lines(series, "a", "b")
    assert worse.verdict == "worse" and (worse.first, worse.second, worse.n) == (0.6, 0.9, 100)
    assert worse.sentence.startswith("a on t, exact_match: worse against b, -0.3 [-0.")
    assert worse.sentence.endswith("] on 100 documents") and worse.high < 0
    assert better.verdict == "better" and better.value < 0  # bits per byte: less is better
    assert same.verdict == "no difference" and "no difference found against b, +0 [" in same.sentence


def test_one_loss_among_many_comparisons_has_to_be_clearer():
    loss = ("t", "exact_match", right(92), right(100))  # eight documents lost, p = 1/256
    equal = ("t", "exact_match", right(50), right(50))
    alone, among = quality_lines([loss], "a", "b"), quality_lines([loss, *[equal] * 9], "a", "b")
    assert alone[0].verdict == "worse" and among[0].verdict == "no difference"
    assert (alone[0].low, alone[0].high) == (among[0].low, among[0].high)  # the interval is each metric's own


def test_equal_methods_seldom_differ():
    dice = random.Random(0)
    families = 60
    alarms = 0
    for _ in range(families):
        draws = [[float(dice.random() < 0.5) for _ in range(60)] for _ in range(6)]
        lines = quality_lines([("t", "exact_match", draws[i], draws[i + 1]) for i in (0, 2, 4)], "a", "b")
        alarms += any(line.verdict != "no difference" for line in lines)
    assert alarms <= 8  # 5 % of 60 families, plus 2.9 standard errors


@pytest.fixture
def ask(world, tmp_path):
    """Compares in the fake world."""

    def call(first=A, second=B, **fields):
        return compare(first, second, Ask(**fields), tmp_path / "log", lambda _: None)

    return call


def verdicts(found):
    return {line.metric: line.verdict for line in found.lines}


def test_sides_of_one_place_share_a_process_and_are_measured_on_each_prompt(ask, world):
    world.plant("head", "ma", slow=0.5, counts={"forwards": 8.0}, memory=2e8)
    world.plant("head", "mb", counts={"forwards": 16.0})
    found = ask(decode=["chatx16n6"])
    assert world.starts == {HERE: 1} and world.count("visit") == 24
    assert (found.layout, found.machine, found.noise.machine) == (ONE, "m1", "m1")
    assert verdicts(found) == {
        "speedup_total": "better",
        "speedup_decode": "better",
        "speedup_ttft": "better",
        "speedup_cpu": "better",
        "forwards": "better",
        "peak_memory_bytes": "worse",
    }


def test_sides_of_two_places_run_in_two_processes(ask, world):
    found = ask(second=Side("b", "ma", THERE), decode=["chatx16n6"])
    assert found.layout == TWO and world.starts == {HERE: 1, THERE: 1}
    assert set(verdicts(found).values()) == {"no difference"}


def test_common_workloads_are_compared_and_none_is_one_line(ask, world):
    world.plant("head", "ma", slow=2.0, workloads=("w", "x"))
    world.plant("head", "mb", workloads=("x", "y"))
    found = ask(workloads=True)
    assert {(line.target, line.metric, line.verdict) for line in found.lines} == {
        ("x", "speedup", "worse"),
        ("x", "speedup_cpu", "worse"),
    }
    world.plant("head", "mb", workloads=("y",))
    with pytest.raises(EnvironmentFailed, match="a and b have no workload in common; give --decode or --tasks"):
        ask(workloads=True)


def test_tasks_are_paired_by_document_with_the_options_asked_for(ask, world):
    world.plant("head", "ma", documents={"exact_match": right(60), "only_here": [1.0]})
    world.plant("head", "mb", documents={"exact_match": right(90, of=120)})
    found = ask(tasks=["t"], options={"limit": 9, "seed": 1})
    assert verdicts(found) == {"exact_match": "worse"} and found.lines[0].n == 100
    assert [a["options"] for _, do, a in world.asked if do == "quality"] == [{"limit": 9, "seed": 1}] * 2


def test_energy_is_shown_only_where_it_is_asked_for(ask, world):
    assert "energy_per_token_decode" not in verdicts(ask(decode=["chatx16n6"]))
    found = ask(decode=["chatx16n6"], energy_s=3.0)
    assert verdicts(found)["energy_per_token_decode"] == "not judged"


def test_what_fails_on_one_target_leaves_the_others(ask, world):
    world.plant("head", "mb", fails={"quality": Refused("no such layer")})
    found = ask(decode=["chatx16n6"], tasks=["t"])
    failed = [line for line in found.lines if line.verdict == "failed"]
    assert [line.sentence for line in failed] == ["t failed: no such layer"] and len(found.lines) > 5
    with pytest.raises(EnvironmentFailed, match="t failed: no such layer"):
        ask(tasks=["t"])
    with pytest.raises(EnvironmentFailed, match="nothing was compared"):
        ask()


def test_an_unreadable_decode_workload_is_one_line(ask):
    with pytest.raises((EnvironmentFailed, UsageError), match="cannot read decode workload 'chat x'") as caught:
        ask(decode=["chat x"])
    assert "\n" not in str(caught.value)
