"""TON: what thought dropout leaves, the two forms that the task accepts, and the training in two stages."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.method import PrepareContext
from harness.kinds.objective.checks import HashTask, loss_and_gradient, moved_logps, random_batch
from harness.kinds.objective.copies import training_copy
from harness.kinds.objective.imitate import imitate
from harness.kinds.objective.skipping import SkipsByLength
from harness.subjects.load import load_subject
from harness.toolkit.verifiable import ToyTask, verifiable_task
from methods.objective.ton import blanked, example_of

TASK = verifiable_task("chain_sum_mixed")


def ton(text=""):
    return MethodSpec.parse("ton@sft_steps=2@sft_batch=4" + text).build()


def test_an_answer_is_never_altered_and_blanking_twice_is_blanking_once():
    rng = random.Random(0)
    for _ in range(200):
        problem = TASK.draw(rng)
        response = TASK.written(problem, rng)
        short = blanked(response)
        assert short.startswith("#") and blanked(short) == short
        assert TASK.reward(problem, short) == TASK.reward(problem, response)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_thoughts_are_left_out_as_often_as_asked(share):
    draw, rng = example_of(TASK, share), random.Random(1)
    texts = [draw(rng)[1] for _ in range(1000)]
    empty = sum(text.startswith("#") for text in texts) / 1000
    assert empty == pytest.approx(share, abs=4 * 0.5 / 1000**0.5 if 0 < share < 1 else 0)


def test_without_dropout_the_examples_are_the_task_s_own():
    draw, ours, theirs = example_of(TASK, 0.0), random.Random(2), random.Random(2)
    for _ in range(20):
        problem = TASK.draw(theirs)
        response = TASK.written(problem, theirs)
        theirs.random()
        assert draw(ours) == (problem, response)


@pytest.mark.parametrize(
    ("text", "right"), [("#3", 1), ("1;3#3", 1), ("##3", 0), ("3", 0), ("1;3#", 0), ("", 0), (" #3", 0)]
)
def test_the_grade_accepts_exactly_the_two_forms(text, right):
    assert TASK.reward((1, 2), text) == right


def test_imitation_lowers_the_loss_of_the_examples_and_follows_from_its_seed(tiny):
    task = ToyTask()

    def trained(seed):
        copied = training_copy(tiny)
        return imitate(copied, task, example_of(task, 0.5), 12, 8, 0.01, seed), copied.model.state_dict()

    losses, state = trained(0)
    again, same = trained(0)
    assert losses == again and all(torch.equal(value, same[name]) for name, value in state.items())
    assert losses[-1] < losses[0] and trained(1)[0] != losses


def test_each_aggregation_is_that_of_its_method():
    batch = random_batch()
    for name, other in (("seq", "grpo"), ("token", "grpo@aggregation=token"), ("balanced", "balanced_agg")):
        logp = moved_logps(batch)
        ours = loss_and_gradient(ton(f"@aggregation={name}"), batch, logp)
        theirs = loss_and_gradient(MethodSpec.parse(other).build(), batch, logp)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_reinforcement_begins_with_what_imitation_made(tiny, tmp_path):
    context = PrepareContext(0, Path(tmp_path), load_subject, lambda name: None)
    method = ton("@updates=1@prompts_per_update=2@group_size=2@max_new_tokens=4")
    object.__setattr__(method, "task", HashTask)
    opened = method.opening(tiny, context).model.state_dict()
    assert any(not torch.equal(value, opened[name]) for name, value in tiny.model.state_dict().items())
    plain = replace(method, sft_steps=0)
    object.__setattr__(plain, "task", HashTask)
    assert all(
        torch.equal(v, plain.opening(tiny, context).model.state_dict()[k]) for k, v in tiny.model.state_dict().items()
    )


def test_skips_are_counted_by_the_number_of_digits(tiny):
    method = ton("@max_new_tokens=3")
    found = SkipsByLength(method, problems=30, samples=2).measure(tiny)
    shares = {(m.metric, m.phase): m for m in found}
    assert {phase for _, phase in shares} <= {f"{n} digits" for n in range(2, 9)}
    assert sum(m.n for m in found if m.metric == "skipped_thoughts") == 30
    assert all(0 <= m.value <= 1 for m in found if m.metric != "response_tokens")


def test_checks(tiny):
    assert [f"{r.name}: {r.reason}" for r in run_checks(ton(), tiny) if not r.passed] == []
