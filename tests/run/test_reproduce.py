"""A recorded trial once more: what agrees, what differs, what cannot be said, and what has changed around it."""

import json
import math

import polars as pl
import pytest

from harness.errors import EnvironmentFailed, UsageError
from harness.kinds.checking import CheckResult
from harness.measure import utilisation
from harness.measure.ceilings import Ceilings
from harness.records.schema import FAILED, TrialRecord
from harness.records.store import RunFolder
from harness.run import perform
from harness.run import reproduce as module
from harness.run.perform import Bench
from harness.run.plan import Scope, make_trials
from harness.run.reproduce import DIFFERS, IMPOSSIBLE, SAME, compare_figures, judge_figure, reproduce
from harness.run.session import machine_digest
from harness.run.suite import parse_suite
from harness.subjects.load import load_subject


@pytest.fixture
def bench(monkeypatch):
    """Performs trials in this process: methods are known to be sound, and what the machine can do at best is data."""
    known = Ceilings("m", "cpu", 1, 1, 1e10, {"float32": 1e11}, {}, {}, {}, None, 0.0)
    monkeypatch.setattr(utilisation, "ceilings", lambda device: known)
    monkeypatch.setattr(perform, "check_cached", lambda spec: [CheckResult("a", "passed")])
    return Bench(load_subject("tiny-random", "cpu"), 0)


def perform_into(bench, folder, rows):
    for row in rows:
        work = folder.scratch()
        folder.store(bench.perform(row, work), work)


@pytest.fixture
def rerun_here(bench, monkeypatch):
    """The second run, too, is performed in this process."""
    monkeypatch.setattr(module, "run_groups", lambda folder, groups, *_: perform_into(bench, folder, groups[0]))


@pytest.fixture
def results(bench, task_folder, tmp_path):
    """A run with a quality and a cost trial; ``ids`` by kind."""
    entry = {
        "methods": ["prompt_lookup"],
        "models": ["tiny-random"],
        "tasks": ["tiny_choice"],
        "decode": [{"prompts": "chat", "new_tokens": 8, "count": 3}],
        "limit": 6,
    }
    quality, cost = make_trials(
        parse_suite({"name": "unit", "entries": [{**entry, "methods": ["kv_full"]}, entry]}, "test"),
        Scope(device="cpu", include_path=(str(task_folder),)),
    )[0::3]
    folder = RunFolder.create(tmp_path / "results", "one", {})
    machine = machine_digest([cost], 1)
    perform_into(bench, folder, [quality.as_dict(machine), cost.as_dict(machine)])
    return tmp_path / "results"


def id_of(results, kind):
    (path,) = (p for p in results.glob("runs/*/*/trials.parquet") if pl.read_parquet(p)["kind"][0] == kind)
    return path.parent.name


def edit(results, trial_id, table, /, **columns):
    """Write other values into a stored trial."""
    (path,) = results.glob(f"runs/*/{trial_id}/{table}.parquet")
    pl.read_parquet(path).with_columns(**columns).write_parquet(path)


def edit_environment(results, trial_id, **values):
    (path,) = results.glob(f"runs/*/{trial_id}/trials.parquet")
    environment = json.loads(pl.read_parquet(path)["environment"][0])
    edit(results, trial_id, "trials", environment=pl.lit(json.dumps({**environment, **values})))


def test_a_trial_is_the_same_in_a_process_of_its_own(results):
    before = sorted(results.rglob("*"))
    events = []
    found = reproduce(results, id_of(results, "quality"), events.append)
    assert (found.verdict, found.reason, found.changes) == (SAME, "", [])
    assert found.sentence == "kv_full on tiny_choice (tiny-random): same; 1 figure agrees within its interval"
    (figure,) = (f for f in found.figures if f.verdict == SAME)
    assert figure.metric == "acc" and figure.then == figure.now and figure.why == "equal"
    assert events[-1]["event"] == "done"
    assert sorted(results.rglob("*")) == before  # apart from the records


def test_of_a_cost_the_counts_are_equal_and_absolute_times_are_not_judged(results, rerun_here):
    found = reproduce(results, id_of(results, "cost"))
    by_name = {f.metric: f for f in found.figures}
    exact = [by_name[name] for name in ("mean_accepted_tokens", "forwards_saved", "kv_bytes_held")]
    assert [f.verdict for f in exact] == [SAME] * 3 and all(f.then == f.now for f in exact)
    for name in ("ttft_p50", "decode_tokens_per_s", "peak_memory_bytes"):
        assert by_name[name].verdict == "not judged" and by_name[name].now > 0
    assert by_name["speedup_total"].verdict != "not judged" and found.changes == []


def test_a_changed_value_differs_and_is_named(results, rerun_here):
    trial_id = id_of(results, "quality")
    now = reproduce(results, trial_id).figures[0].now
    edit(results, trial_id, "measurements", value=pl.lit(now + 0.25))
    found = reproduce(results, trial_id)
    assert found.verdict == DIFFERS
    assert f"differs in 1 of 1 figures: acc was {now + 0.25:.4g}, is {now:.4g} (it has no noise" in found.sentence


def test_another_model_of_the_same_name_cannot_be_reproduced(results, bench, rerun_here):
    trial_id = id_of(results, "quality")
    edit_environment(results, trial_id, weights="0123456789abcdef")
    found = reproduce(results, trial_id)
    assert found.verdict == IMPOSSIBLE and found.figures == []
    assert found.sentence.endswith(f"the model is another: its weights are {bench.weights}, they were 0123456789abcdef")
    edit_environment(results, trial_id, weights=None)  # a record from before weights were noted
    assert reproduce(results, trial_id).verdict == SAME


def test_another_version_is_noted_and_the_figures_judged(results, rerun_here):
    trial_id = id_of(results, "quality")
    (path,) = results.glob(f"runs/*/{trial_id}/trials.parquet")
    versions = json.loads(pl.read_parquet(path)["environment"][0])["versions"]
    edit_environment(results, trial_id, versions={**versions, "torch": "1.0", "gone": "2.0"})
    found = reproduce(results, trial_id)
    assert found.verdict == SAME
    assert found.changes == ["gone was 2.0, is None", f"torch was 1.0, is {versions['torch']}"]


def test_another_machine_is_noted(results, rerun_here):
    trial_id = id_of(results, "cost")
    edit(results, trial_id, "trials", machine=pl.lit("feedfeedfeed"))
    edit_environment(results, trial_id, machine_label="a large computer")
    (change,) = reproduce(results, trial_id).changes
    assert change.startswith("the machine was a large computer; this is ")


def test_changed_sources_are_noted_with_their_commit(results, rerun_here):
    """The id is a hash of the sources: a trial that comes out with another id ran on others."""
    old = id_of(results, "quality")
    for table in ("trials", "measurements", "samples"):
        edit(results, old, table, trial_id=pl.lit("0000111122223333"))
    (folder,) = results.glob(f"runs/*/{old}")
    folder.rename(folder.with_name("0000111122223333"))
    edit_environment(results, "0000111122223333", git={"commit": "c" * 40, "dirty": False})
    assert reproduce(results, "0000").changes == [f"the sources have changed since commit {'c' * 12}"]
    edit_environment(results, "0000111122223333", git=None)
    assert reproduce(results, "0000").changes == ["the sources have changed since then"]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("method", "kv_ful", "unknown method 'kv_ful'; did you mean 'kv_full'"),
        ("method", "kv_full@gone=1", "kv_full"),
    ],
)
def test_a_method_that_is_gone_cannot_be_reproduced(results, rerun_here, column, value, reason):
    trial_id = id_of(results, "quality")
    edit(results, trial_id, "trials", **{column: pl.lit(value)})
    found = reproduce(results, trial_id)
    assert found.verdict == IMPOSSIBLE and reason in found.reason and "\n" not in found.sentence


def test_a_wrong_name_found_by_the_process_cannot_be_reproduced(results, monkeypatch):
    def refuse(*_):
        raise UsageError("unknown model 'gone'")

    monkeypatch.setattr(module, "run_groups", refuse)
    found = reproduce(results, id_of(results, "quality"))
    assert found.sentence == "kv_full on tiny_choice (tiny-random): cannot be reproduced here: unknown model 'gone'"


def test_a_trial_that_fails_now_cannot_be_reproduced(results, monkeypatch):
    def fail(folder, groups, *_):
        folder.store(TrialRecord(trial=groups[0][0], status=FAILED, reason="out of luck", started="2026"))

    monkeypatch.setattr(module, "run_groups", fail)
    found = reproduce(results, id_of(results, "quality"))
    assert (found.verdict, found.reason) == (IMPOSSIBLE, "it ended as failed: out of luck")


def test_a_trial_of_absolute_times_alone_says_that_nothing_can_be_judged(results, rerun_here):
    trial_id = id_of(results, "quality")
    edit(results, trial_id, "measurements", source=pl.lit("clock"), low=pl.lit(None, pl.Float64))
    found = reproduce(results, trial_id)
    assert (found.verdict, found.reason) == (IMPOSSIBLE, "none of its figures can be judged")


def test_ids_are_found_by_their_start(results):
    quality, cost = id_of(results, "quality"), id_of(results, "cost")
    common = next(n for n in range(1, 17) if quality[:n] != cost[:n])
    assert module.find_trial(results, quality[:common])["trial_id"] == quality
    for table in ("trials", "measurements", "samples"):
        edit(results, cost, table, trial_id=pl.lit(quality[:8] + "--------"))
    with pytest.raises(UsageError, match=f"2 trials begin with '{quality[:8]}'; give more of the id"):
        module.find_trial(results, quality[:8])


@pytest.mark.parametrize("trial_id", ["nosuch", ""])
def test_an_unknown_id_is_one_line(results, trial_id):
    with pytest.raises(UsageError, match=f"no trial '{trial_id}' under") as caught:
        reproduce(results, trial_id)
    assert "\n" not in str(caught.value)


def test_a_failed_trial_has_no_figure(results):
    trial_id = id_of(results, "quality")
    edit(results, trial_id, "trials", status=pl.lit("timeout"), reason=pl.lit("took too long"))
    with pytest.raises(UsageError, match=rf"trial {trial_id} ended as timeout \(took too long\)"):
        reproduce(results, trial_id)


def test_no_records_are_one_line(tmp_path):
    with pytest.raises(EnvironmentFailed, match="no records under"):
        reproduce(tmp_path, "a")


def row(value, low=None, high=None, source="clock", metric="speedup_total", phase=""):
    return {"metric": metric, "phase": phase, "value": value, "low": low, "high": high, "source": source}


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [
        (row(5.0, source="count"), row(5.0, source="count"), SAME),
        (row(5.0, source="count"), row(5.0 + 1e-9, source="count"), SAME),
        (row(5.0, source="count"), row(5.1, source="count"), DIFFERS),
        (row(1e9, source="count"), row(1e9 + 1, source="count"), SAME),  # beyond what a sum of floats keeps
        (row(0.5, 0.1, 0.9, "lm-eval"), row(0.52, 0.1, 0.9, "lm-eval"), DIFFERS),  # its interval is about documents
        (row(0.5, source="probe"), row(0.4, source="probe"), DIFFERS),
        (row(1.5, 1.4, 1.6), row(1.5, 1.4, 1.6), SAME),
        (row(1.5, 1.4, 1.6), row(1.63, 1.53, 1.73), SAME),  # within the root of both half-widths squared, 0.141
        (row(1.5, 1.4, 1.6), row(1.65, 1.55, 1.75), DIFFERS),
        (row(1.5, 1.4, 1.6), row(1.3, 1.25, 1.35), DIFFERS),
        (row(1.5, 1.4, 1.6), row(9.0), SAME),  # a figure of one unit has no interval, and rules nothing out
        (row(20.0), row(40.0), "not judged"),
        (row(20.0), None, "not judged"),
        (row(3.0, 2.0, 4.0, "model"), row(9.0, 8.0, 9.5, "model"), "not judged"),
        (row(7e8, source="count", metric="peak_memory_bytes"), row(9e8, source="count"), "not judged"),
        (row(1.5, 1.4, 1.6), None, DIFFERS),
        (row(5.0, source="count"), row(None, source="count"), DIFFERS),
        (row(5.0, source="count"), row(math.nan, source="count"), DIFFERS),
    ],
)
def test_how_a_figure_is_judged(then, now, verdict):
    found, why = judge_figure(then, now)
    assert found == verdict and why


def test_figures_meet_those_of_their_metric_and_phase_in_order():
    def count(value, phase):
        return row(value, source="count", metric="error_rms", phase=phase)

    then = [count(1.0, "a"), count(2.0, "b"), count(3.0, "a"), count(None, "a")]
    now = [count(2.0, "b"), count(1.0, "a")]
    found = [(f.phase, f.then, f.now, f.verdict) for f in compare_figures(then, now)]
    assert found == [("a", 1.0, 1.0, SAME), ("b", 2.0, 2.0, SAME), ("a", 3.0, None, DIFFERS)]


def test_a_missing_figure_is_named_in_the_sentence():
    found = module.Reproduction("i", "m on t", DIFFERS, figures=compare_figures([row(3.0, source="count")], []))
    expected = "speedup_total was 3, is missing (the figure is missing now)"
    assert found.sentence == f"m on t: differs in 1 of 1 figures: {expected}"
