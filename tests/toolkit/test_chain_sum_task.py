"""The task as lm-eval sees it: found by name, asked, filtered and scored."""

from types import SimpleNamespace

import pytest

from harness.evaluate.quality import EvalOptions, load_task


@pytest.fixture(scope="module")
def task():
    (found,), needs = load_task("zoo_chain_sum", EvalOptions())
    assert needs == {"generate"}
    return found


def test_documents_reach_lm_eval(task):
    docs = list(task.test_docs())
    assert len(docs) == 200
    assert task.doc_to_text(docs[0]) == docs[0]["question"]
    assert task.config.generation_kwargs["do_sample"] is True and task.config.generation_kwargs["temperature"] == 1.0


@pytest.mark.parametrize(("text", "value"), [("3;1#{}", 1.0), ("#{}", 1.0), ("3;1#{}#", 0.0), ("{}", 0.0), ("", 0.0)])
def test_grading_is_the_reward(task, text, value):
    doc = next(iter(task.test_docs()))
    instance = SimpleNamespace(resps=[text.format(doc["answer"])], doc=doc, filtered_resps={})
    for ensemble in task._filters:
        ensemble.apply([instance])
    (filtered,) = instance.filtered_resps.values()
    assert task.process_results(doc, [filtered])["exact_match"] == value
