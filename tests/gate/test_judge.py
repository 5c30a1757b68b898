"""One trial: what is planted is found, what is equal passes, and what cannot be told is not made up."""

import pytest

from harness.errors import EnvironmentFailed, Refused, UsageError
from harness.gate.finding import COUNT, NOT_JUDGED
from harness.gate.judge import Bar, judge_trial
from harness.gate.policy import parse_policy
from harness.measure.noise import TWO, NoiseFloor
from harness.run.lockstep import Place
from harness.stats.sequential import INCONCLUSIVE, PASS, REGRESSION

HEAD, BASE = Place("tiny-random"), Place("tiny-random", source="base")
CLOCK, TASK = {"metrics": ["speedup_total"]}, {"decode": "", "task": "t", "metrics": ["exact_match"]}
ENERGY = {"metrics": ["energy_per_token_decode"]}


@pytest.fixture
def judge(world, noise):
    """Judges one trial of the method ``m``; ``policy`` and ``floors`` are fields of theirs."""

    def call(trial, policy=None, floors=None, places=(HEAD, BASE)):
        table = {"method": "m", "decode": "chatx16n4", **trial}
        parsed = parse_policy({"trial": [{k: v for k, v in table.items() if v}], **(policy or {})}, "p")
        one = world.station(places[0])
        other = one if places[0] == places[1] else world.station(places[1])
        bar = Bar(parsed, noise(**(floors or {})), 1, same_process=one is other)
        judged = judge_trial(one, other, parsed.trial[0], bar)
        return {f.metric: f for f in judged.findings}, judged

    return call


@pytest.mark.parametrize("metric", ["speedup_total", "speedup_cpu", "speedup_decode", "speedup_ttft"])
def test_a_planted_slow_down_is_a_regression_by_its_size(world, judge, metric):
    world.plant("head", "m", slow=1.2)
    found = judge({"metrics": [metric]})[0][metric]
    assert found.outcome == REGRESSION and found.low > found.floor == 0.01
    assert found.value == pytest.approx(0.2, abs=0.03) and found.margin == 0.05


@pytest.mark.parametrize("seed", range(5))
def test_equal_sides_pass(world, judge, seed):
    world.dice.seed(seed)
    found = judge(CLOCK)[0]["speedup_total"]
    assert found.outcome == PASS and found.high < 0.05 and abs(found.value) < 0.02


@pytest.mark.parametrize("slow", [1.0, 3.0])
def test_a_tiny_budget_cannot_tell_and_never_alarms(world, judge, slow):
    world.plant("head", "m", slow=slow)
    found = judge({**CLOCK, "budget_s": 0.25})[0]["speedup_total"]
    assert found.outcome == INCONCLUSIVE and "budget is too small to tell" in found.note and found.n <= 3


def test_the_budget_is_kept_and_a_clear_case_does_not_spend_it(world, judge):
    world.noise = 0.3
    world.plant("head", "m", slow=1.03)
    assert judge(CLOCK, {"budget_s": 20.0})[0]["speedup_total"].outcome == INCONCLUSIVE
    assert 15 < world.clock_s < 21
    world.clock_s, world.noise = 0.0, 0.01
    world.plant("head", "m", slow=1.5)
    assert judge(CLOCK, {"budget_s": 20.0})[0]["speedup_total"].outcome == REGRESSION
    assert world.clock_s < 10


def test_slower_within_the_margin_passes_and_is_named(world, judge):
    world.plant("head", "m", slow=1.05)
    found = judge(CLOCK, {"margin": 0.15})[0]["speedup_total"]
    assert (found.outcome, found.note) == (PASS, "slower, within the margin") and found.low > 0.01


def test_faster_passes_and_is_named(world, judge):
    world.plant("head", "m", slow=0.8)
    found = judge(CLOCK)[0]["speedup_total"]
    assert (found.outcome, found.note) == (PASS, "faster") and found.value < -0.15


def test_a_margin_below_the_floor_is_refused_with_the_floor(judge):
    with pytest.raises(UsageError, match=r"margin of 5.00% for speedup_total .* noise floor of 7.00%"):
        judge(CLOCK, floors={"wall": 0.07})
    with pytest.raises(UsageError, match=r"for peak_memory_bytes .* floor of 6.00%"):
        judge({"metrics": ["peak_memory_bytes"]}, floors={"memory": 0.06})


def test_a_floor_that_was_never_measured_is_asked_for(world, judge, noise, monkeypatch):
    monkeypatch.setattr(NoiseFloor, "of", lambda *_: None)
    with pytest.raises(UsageError, match=r"no noise floor for speedup_total .*`zoo doctor --noise`"):
        judge(CLOCK)


@pytest.mark.parametrize(
    ("name", "candidate", "outcome"),
    [
        ("forwards", 17.0, REGRESSION),
        ("forwards", 15.0, PASS),
        ("forwards", 16.0, PASS),
        ("mean_accepted_tokens", 0.9, REGRESSION),
        ("mean_accepted_tokens", 1.1, PASS),
        ("kv_bytes_held", 4097.0, REGRESSION),
        ("kv_kept_fraction", 0.5, PASS),
    ],
)
def test_counts_are_exact_and_know_their_direction(world, judge, name, candidate, outcome):
    world.plant("head", "m", counts={name: candidate})
    found = judge({"metrics": [name]})[0][name]
    assert (found.outcome, found.form, found.source) == (outcome, COUNT, "count")
    one, other = found.sides
    assert (one == other) == (found.value == 0.0)


def test_a_count_within_its_margin_passes(world, judge):
    world.plant("head", "m", counts={"forwards": 17.0})
    for margin, outcome in ((0.1, PASS), (0.05, REGRESSION)):
        found = judge({"metrics": ["forwards"], "margins": {"forwards": margin}})[0]["forwards"]
        assert found.outcome == outcome and found.value == pytest.approx(1 / 16)


def test_a_count_from_nothing_is_infinitely_worse(world, judge):
    world.plant("head", "m", counts={"forwards": 1.0})
    world.plant("base", "m", counts={"forwards": 0.0})
    found = judge({"metrics": ["forwards"]})[0]["forwards"]
    assert found.outcome == REGRESSION and found.value == float("inf") and "worse" in found.sentence


def test_a_count_that_a_side_does_not_keep_is_left_out(world, judge):
    world.plant("base", "m", counts={"forwards": 16.0})
    found, _ = judge({"metrics": ["forwards", "kv_bytes_held"]})
    assert list(found) == ["forwards"]


def test_counts_come_first_and_need_no_more_than_each_unit_once(world, judge):
    found, judged = judge({"metrics": ["speedup_total", "forwards"]})
    assert list(found) == ["forwards", "speedup_total"]
    world.asked.clear()
    judged = judge({"metrics": ["forwards"]})[1]
    assert len(judged.blocks) == 4 and world.count("visit") == 16


@pytest.mark.parametrize(("memory", "outcome"), [(1.2e8, REGRESSION), (1.0e8, PASS), (0.5e8, PASS)])
def test_memory_is_held_against_margin_and_floor(world, judge, memory, outcome):
    world.plant("head", "m", memory=memory)
    found = judge({"metrics": ["peak_memory_bytes"]})[0]["peak_memory_bytes"]
    assert (found.outcome, found.floor, found.n) == (outcome, 0.02, 3)
    assert found.sides[0] == pytest.approx(memory, rel=0.01)


def test_modelled_energy_is_shown_and_never_judged(world, judge):
    world.plant("head", "m", joules=[(5.0, "model")])
    found = judge(ENERGY, floors={"energy (counter)": 0.02})[0]["energy_per_token_decode"]
    assert found.outcome == NOT_JUDGED and found.value == pytest.approx(9.0) and "'model' never gates" in found.note


@pytest.mark.parametrize(("joules", "outcome"), [(0.6, REGRESSION), (0.5, PASS), (0.4, PASS)])
def test_energy_of_a_counter_is_judged(world, judge, joules, outcome):
    world.plant("head", "m", joules=[(joules, "counter")])
    world.plant("base", "m", joules=[(0.5, "counter")])
    found = judge(ENERGY, floors={"energy (counter)": 0.02})[0]["energy_per_token_decode"]
    assert (found.outcome, found.floor, found.margin, found.source) == (outcome, 0.02, 0.05, "counter")


def test_energy_without_a_floor_or_a_figure_is_not_judged(world, judge):
    for side in ("head", "base"):
        world.plant(side, "m", joules=[(0.5, "counter")])
    assert "zoo doctor --noise --energy" in judge(ENERGY)[0]["energy_per_token_decode"].note
    world.plant("head", "m", joules=[])
    found = judge(ENERGY, floors={"energy (counter)": 0.02})[0]["energy_per_token_decode"]
    assert found.outcome == NOT_JUDGED and found.value is None


@pytest.mark.parametrize("trial", [{"metrics": ["forwards", "speedup_total"]}, TASK])
@pytest.mark.parametrize("error", [EnvironmentFailed("out of memory"), Refused("no such layer"), UsageError("what?")])
def test_what_the_candidate_alone_cannot_do_is_a_regression(world, judge, trial, error):
    world.plant("head", "m", fails={"open_decode": error, "quality": error})
    found, _ = judge(trial)
    assert {f.outcome for f in found.values()} == {REGRESSION} and list(found) == trial["metrics"]
    assert all(str(error) in f.note and f.value is None for f in found.values())


@pytest.mark.parametrize("trial", [CLOCK, TASK])
def test_what_neither_can_do_is_the_candidates_error(world, judge, trial):
    world.plant("head", "m", fails=dict.fromkeys(("open_decode", "quality"), UsageError("unknown method 'm'")))
    world.plant("base", "m", fails=dict.fromkeys(("open_decode", "quality"), EnvironmentFailed("no data")))
    with pytest.raises(UsageError, match="unknown method 'm'"):
        judge(trial)


@pytest.mark.parametrize("trial", [CLOCK, TASK])
def test_what_the_baseline_alone_cannot_do_is_no_typo(world, judge, trial):
    world.plant("base", "m", fails=dict.fromkeys(("open_decode", "quality"), UsageError("unknown method 'm'")))
    with pytest.raises(EnvironmentFailed, match="runs on the candidate's side, fails on the baseline's: unknown"):
        judge(trial)


@pytest.mark.parametrize("trial", [CLOCK, TASK])
def test_a_rival_that_runs_makes_no_regression_of_a_typo(world, judge, trial):
    world.plant("head", "m", fails=dict.fromkeys(("open_decode", "quality"), UsageError("unknown method 'm'")))
    with pytest.raises(UsageError, match="unknown method 'm'"):
        judge({**trial, "against": "r"}, places=(HEAD, HEAD))


def test_a_rival_runs_in_the_same_process(world, judge):
    world.plant("head", "r", slow=1 / 1.2)
    found = judge({**CLOCK, "against": "r"}, places=(HEAD, HEAD))[0]["speedup_total"]
    assert found.outcome == REGRESSION and world.starts == {HEAD: 1}


def test_a_workload_is_judged_against_its_base_and_alone_against_its_reference(world, judge):
    world.plant("head", "m", slow=1.2)
    trial = {"decode": "", "workload": "attention", "metrics": ["speedup", "speedup_cpu"]}
    for places in ((HEAD, BASE), (HEAD, HEAD)):
        found, _ = judge(trial, places=places)
        assert {f.outcome for f in found.values()} == {REGRESSION} and list(found) == trial["metrics"]
    assert [a.get("reference", False) for _, do, a in world.asked if do == "open_workload"] == [False] * 3 + [True]


def documents(right, n=200):
    return {"exact_match": [1.0] * right + [0.0] * (n - right)}


@pytest.mark.parametrize(
    ("head", "base", "outcome", "note"),
    [
        (documents(100), documents(100), PASS, "equal on all 200 documents"),
        (documents(3, 5), documents(3, 5), PASS, "equal on all 5 documents"),
        (documents(60), documents(100), REGRESSION, "200 documents can tell a loss of"),
        (documents(140), documents(100), PASS, ""),
        (documents(2, 5), documents(4, 5), INCONCLUSIVE, ""),
        (documents(99), documents(100), PASS, ""),
        ({"bits_per_byte": [1.0, 1.1] * 50}, {"bits_per_byte": [1.2, 1.4] * 50}, PASS, ""),
        ({"bits_per_byte": [1.2, 1.4] * 50}, {"bits_per_byte": [1.0, 1.1] * 50}, REGRESSION, ""),
    ],
)
def test_quality_is_paired_by_document(world, judge, head, base, outcome, note):
    (name,) = head
    world.plant("head", "m", documents=head)
    world.plant("base", "m", documents=base)
    found = judge({**TASK, "metrics": [name]})[0][name]
    assert found.outcome == outcome and note in found.note and found.n == len(head[name])
    assert found.value == pytest.approx((sum(head[name]) - sum(base[name])) / len(head[name]))
    assert found.low is None or found.low <= found.value <= found.high


def test_only_documents_of_both_sides_count(world, judge):
    world.plant("head", "m", documents=documents(100, 150))
    world.plant("base", "m", documents=documents(100, 200))
    assert judge(TASK)[0]["exact_match"].note == "equal on all 150 documents"
    world.plant("base", "m", documents={})
    with pytest.raises(UsageError, match="no document in common"):
        judge(TASK)


def test_a_metric_that_the_task_lacks_names_the_nearest(world, judge):
    with pytest.raises(UsageError, match="'word_match'; did you mean 'exact_match'") as caught:
        judge({**TASK, "metrics": ["word_match"]})
    assert "\n" not in str(caught.value)


def test_a_floor_belongs_to_its_layout(noise):
    policy = parse_policy({"trial": [{"method": "m", "decode": "chatx16n4"}]}, "p")
    found = noise()
    found.floors[TWO] = noise(wall=0.03).floors[TWO]
    floors = [Bar(policy, found, 1, same).floor("speedup_total").value for same in (True, False)]
    assert floors == [0.01, 0.03]


def test_the_alarm_rate_of_the_gate_is_shared_out(noise):
    policy = parse_policy({"trial": [{"method": "m", "decode": "chatx16n4"}]}, "p")
    design = Bar(policy, noise(), 20, same_process=False).design(policy.trial[0], "speedup_total")
    assert design.false_alarm == pytest.approx(0.01 / 20) and design.false_pass == 0.05
