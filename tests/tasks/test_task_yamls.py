"""Every YAML of ours loads in lm-eval without its own tasks, and runs on a tiny model."""

import logging
import subprocess
import sys

import pytest

from harness.evaluate.lm import ZooLM
from tasks import include_path, our_configs, our_groups, our_tasks
from tasks.packaged.loaders import PACKAGES

EXPECTED = {
    *("zoo_induct8", "zoo_induct24", "zoo_kvc8", "zoo_kvc16", "zoo_kvc_long", "zoo_kvc_long128", "zoo_category"),
    *("zoo_agree1", "zoo_agree3", "zoo_add50", "zoo_copy_gen", "zoo_nll_text", "zoo_count"),
    *("zoo_kvc16_blind", "zoo_passkey", "zoo_passkey_blind"),
    *("zoo_ruler_needle", "zoo_ruler_needle_blind", "zoo_ruler_multikey", "zoo_ruler_multikey_blind"),
    *("zoo_ruler_common", "zoo_ruler_common_blind", "zoo_ruler_multikey2k", "zoo_ruler_multikey2k_blind"),
    *("zoo_ruler_multikey8k", "zoo_ruler_multikey8k_blind"),
    *("zoo_ruler_tracking2k", "zoo_ruler_tracking2k_blind"),
    *("zoo_ruler_common2k", "zoo_ruler_common2k_blind", "zoo_ruler_tracking", "zoo_ruler_tracking_blind"),
    *("zoo_hellaswag100", "zoo_truthfulqa100", "zoo_gsm8k50", "zoo_humaneval_bpb"),
}
TAGS = ("zoo_generated", "zoo_packaged", "zoo_ruler")
GROUPS = {
    "charbench": "acc",
    "charbench_gen": "last_int",
    "counting_probe": "acc",
    "counting_probe_direct": "exact_match",
    "number_direction": "acc",
    "number_direction_gen": "exact_match",
}


def evaluate(tiny, names, **knobs):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_path=str(include_path()), include_defaults=False, metadata=knobs or None)
    return simple_evaluate(
        model=ZooLM(subject=tiny, batch_size=16), tasks=names, limit=2, task_manager=manager, bootstrap_iters=10
    )


def check(results, names):
    for name in names:
        config, figures = our_configs()[name], results["results"][name]
        assert results["n-samples"][name]["effective"] == 2
        for metric in (m["metric"] for m in config["metric_list"]):
            value = figures[f"{metric},none"]
            assert value == value and abs(value) < float("inf"), (name, metric)
        assert len({s["doc_hash"] for s in results["samples"][name]}) == 2


def test_our_tasks_agree_with_lm_eval_s_index():
    from lm_eval.tasks import TaskManager

    indexed = TaskManager(include_path=str(include_path()), include_defaults=False)
    assert set(our_tasks()) >= EXPECTED
    assert set(our_tasks()) == set(indexed.all_subtasks)
    assert set(our_groups()) == set(indexed.all_groups)
    assert all(set(members) <= set(our_tasks()) for members in our_groups().values())


def test_our_tasks_needs_neither_torch_nor_lm_eval():
    code = "import sys, tasks; tasks.our_tasks(); sys.exit(bool({'torch', 'lm_eval', 'datasets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_metric_says_how_it_is_aggregated_and_which_way_is_better():
    for name in EXPECTED:
        config = our_configs()[name]
        assert config["metadata"]["measures"] and config["tag"] in TAGS
        assert all({"aggregation", "higher_is_better"} <= set(m) for m in config["metric_list"])


def test_all_generated_tasks_run(tiny):
    names = sorted(k for k in EXPECTED if our_configs()[k]["tag"] == "zoo_generated")
    check(evaluate(tiny, names), names)


def test_all_tasks_in_the_form_of_ruler_run(tiny):
    names = sorted(k for k in EXPECTED if our_configs()[k]["tag"] == "zoo_ruler")
    check(evaluate(tiny, names, sentences=5, words=100, keys=3), names)


@pytest.mark.parametrize("tag", ["zoo_tokenization", "zoo_tokenization_long"])
def test_all_tokenization_tasks_run(tiny, tag):
    names = sorted(k for k, c in our_configs().items() if c.get("tag") == tag)
    assert len(names) >= 9
    check(evaluate(tiny, names), names)


def test_groups_have_an_aggregate_of_their_tasks(tiny):
    results = evaluate(tiny, list(GROUPS))
    for group, metric in GROUPS.items():
        members = results["group_subtasks"][group]
        figures = [results["results"][name][f"{metric},none"] for name in members]
        assert results["groups"][group][f"{metric},none"] == pytest.approx(sum(figures) / len(members))


def test_all_packaged_tasks_run(tiny):
    for package in PACKAGES:
        for member in package.members:
            if not package.path(member).is_file():
                pytest.skip(f"{member} of {package.requirement} is not in the cache; a run of its task fetches it")
    names = sorted(k for k in EXPECTED if our_configs()[k]["tag"] == "zoo_packaged")
    check(evaluate(tiny, names), names)


def test_knobs_can_be_changed_by_metadata():
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(include_path()), include_defaults=False, metadata={"n": 3, "pairs": 5})
    (task,) = manager.load(["zoo_kvc8"])["tasks"].values()
    docs = list(task.eval_docs)
    assert len(docs) == 3 and len(docs[0]["context"].split("\n\n")[0].split("\n")) == 5
