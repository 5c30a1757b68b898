"""TON: thought dropout, what the supervised steps teach, its reduction to GRPO, and the kind's checks."""

import math
import random
from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.method import PrepareContext
from harness.kinds.objective.checks import HashTask
from harness.kinds.objective.copies import training_copy
from harness.kinds.objective.texts import Encoded
from harness.toolkit.chain_sum import ChainSum
from methods.objective.ton import is_skipped, without_thought

BUDGET = "@updates=2@prompts_per_update=2@group_size=4@max_new_tokens=5"


def made(text="ton"):
    return MethodSpec.parse(text).build()


def test_a_thought_is_left_out_as_often_as_q_says_and_the_answer_stays():
    rng, text = random.Random(0), "3;1;6;5#5"
    found = [without_thought(text, "#", 0.3, rng) for _ in range(2000)]
    assert set(found) == {text, "#5"}
    assert abs(found.count("#5") - 600) < 4 * math.sqrt(2000 * 0.21)
    assert {without_thought(text, "#", 0.0, rng) for _ in range(50)} == {text}
    assert {without_thought(text, "#", 1.0, rng) for _ in range(50)} == {"#5"}


def test_empty_thoughts_and_texts_without_a_mark_stay_as_they_are():
    rng = random.Random(0)
    assert without_thought("#5", "#", 1.0, rng) == "#5" and without_thought("315", "#", 1.0, rng) == "315"
    assert [is_skipped(t, "#") for t in ("#5", " #5", "3#5", "35", "")] == [True, True, False, False, False]


def test_examples_are_right_and_follow_from_the_seed():
    method, task = made(), ChainSum()
    problems, texts = method.examples(random.Random("a"))
    assert (problems, texts) == method.examples(random.Random("a")) != method.examples(random.Random("b"))
    assert all(task.reward(problem, text) == 1 for problem, text in zip(problems, texts, strict=True))
    assert 4 < sum(text.startswith("#") for text in texts) < 28


def test_the_supervised_steps_make_empty_thoughts_likely(tiny):
    probe = Encoded.of(tiny, ChainSum(), [(1, 2, 3, 4)], ["#0"])
    chances = {}
    for q in (0.0, 1.0):
        copied = training_copy(tiny)
        replace(made(), q=q, sft_steps=10, sft_batch=8, sft_learning_rate=3e-3).warm_up(copied, 0)
        with torch.no_grad():
            chances[q] = float(probe.logps(copied.model)[0, 0])
    assert chances[1.0] > chances[0.0] + 1


def test_without_supervised_steps_it_is_grpo(tiny, tmp_path):
    states = []
    for spec in ("ton@sft_steps=0", "grpo"):
        method = made(spec + BUDGET)
        object.__setattr__(method, "task", HashTask)
        states.append(method.prepare(tiny, PrepareContext(0, tmp_path / method.card.id, None, None))["state"])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_the_probe_counts_thoughts(tiny):
    probe = made("ton" + BUDGET).probes()[-1]
    figures = {m.metric: m for m in probe.measure(tiny)}
    assert 0 <= figures["skip_ratio"].value <= 1 and 1 <= figures["response_tokens"].value <= 5
    assert figures["thought_reward"].n + (figures["skipped_reward"].n if "skipped_reward" in figures else 0) == 8


@pytest.mark.parametrize("spec", ["ton@sft_steps=2", "ton@sft_steps=1@aggregation=token@q=1"])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
