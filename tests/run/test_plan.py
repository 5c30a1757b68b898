"""Suites, grids and trial ids: the same input has the same id, and an edit makes exactly its own trials stale."""

import pytest

from harness.errors import UsageError
from harness.kinds.sources import package_sources
from harness.run.plan import Scope, group_trials, make_trials
from harness.run.suite import DecodeSpec, expand_grid, load_suite, parse_suite, suite_names


def test_a_list_is_an_axis_of_the_grid():
    assert expand_grid("m@x=[1,2]@y=3+n@z=[a,b]") == [
        "m@x=1@y=3+n@z=a",
        "m@x=1@y=3+n@z=b",
        "m@x=2@y=3+n@z=a",
        "m@x=2@y=3+n@z=b",
    ]
    with pytest.raises(UsageError, match="empty list"):
        expand_grid("m@x=[]")


def test_a_typo_in_a_suite_names_the_nearest_field():
    with pytest.raises(UsageError, match="did you mean 'methods'"):
        parse_suite({"name": "x", "entries": [{"metods": ["ar"], "methods": ["ar"]}]}, "x.yaml")
    with pytest.raises(UsageError, match="did you mean 'new_tokens'"):
        parse_suite(
            {"name": "x", "entries": [{"methods": ["ar"], "decode": [{"prompts": "chat", "new_token": 3}]}]}, "x.yaml"
        )
    with pytest.raises(UsageError, match="unknown suite 'smok'; did you mean 'smoke'"):
        load_suite("smok")


@pytest.mark.parametrize("name", suite_names())
def test_every_shipped_suite_plans(name):
    suite = load_suite(name)
    trials = make_trials(suite, Scope())
    assert len(trials) == len({repr(t) for t in trials}) > 0
    groups = group_trials([t.as_dict("machine") for t in trials])
    assert sum(len(g) for g in groups) == len(trials)
    assert all(len({(t["model"], t["dtype"]) for t in g}) == 1 for g in groups)


def suite_of(methods):
    entry = {"methods": methods, "models": ["tiny-random"], "tasks": ["t"], "decode": [{"prompts": "chat"}]}
    return parse_suite({"name": "unit", "entries": [entry]}, "test")


def test_seeds_repeat_tasks_and_probes_and_not_costs():
    entry = {"methods": ["ar"], "tasks": ["t"], "decode": [{"prompts": "chat"}], "probes": True, "seeds": 3}
    trials = make_trials(parse_suite({"name": "unit", "entries": [entry]}, "test"), Scope(seed=5))
    assert [(t.kind, t.seed) for t in trials] == [
        ("quality", 5), ("cost", 5), ("probe", 5), ("quality", 6), ("probe", 6), ("quality", 7), ("probe", 7)
    ]  # fmt: skip
    groups = group_trials([t.as_dict("machine") for t in trials])
    assert [{t["seed"] for t in group} for group in groups] == [{5}, {6}, {7}]


def ids(methods):
    return {(t.method, t.kind): t.trial_id("m") for t in make_trials(suite_of(methods), Scope())}


def test_editing_one_method_makes_exactly_its_trials_stale(foreign, write):
    methods = ["good_twin", "bad_raise", "kv_streaming"]
    before = ids(methods)
    assert before == ids(methods)
    write("good_twin", "x = 1")
    changed = {key for key, trial_id in ids(methods).items() if trial_id != before[key]}
    assert changed == {("good_twin", "quality"), ("good_twin", "cost")}


def test_only_cost_depends_on_the_machine():
    quality, cost = make_trials(suite_of(["kv_streaming"]), Scope())
    assert (quality.kind, cost.kind) == ("quality", "cost")
    assert quality.trial_id("a") == quality.trial_id("b")
    assert cost.trial_id("a") != cost.trial_id("b")


def test_the_seed_and_options_are_part_of_the_id():
    one, two = (make_trials(suite_of(["ar"]), Scope(seed=s))[0] for s in (0, 1))
    assert one.trial_id("m") != two.trial_id("m")


def test_a_decode_workload_is_written_as_it_is_read():
    from harness.run.suite import parse_decode

    spec = DecodeSpec(prompts="prose", prompt_tokens=512, new_tokens=32, count=4, batch=2)
    assert spec.name == "prose:512x32b2n4"
    assert DecodeSpec(**parse_decode(spec.name)) == spec


def test_sources_of_a_package_change_with_its_files(foreign, write):
    package_sources.cache_clear()
    before = package_sources("foreign_methods")
    write("good_twin", "x = 2")
    package_sources.cache_clear()
    assert package_sources("foreign_methods") != before
