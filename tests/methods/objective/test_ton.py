"""TON: what thought dropout leaves, the two forms that the task accepts, and the training in two stages."""

import random

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.objective.checks import loss_and_gradient, moved_logps, random_batch
from harness.kinds.objective.copies import training_copy
from harness.kinds.objective.skipping import SkipsByLength
from harness.kinds.objective.texts import Encoded
from harness.toolkit.verifiable import verifiable_task
from methods.objective.ton import blanked, draw_example

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
    rng = random.Random(1)
    texts = [draw_example(TASK, share, rng)[1] for _ in range(1000)]
    empty = sum(text.startswith("#") for text in texts) / 1000
    assert empty == pytest.approx(share, abs=4 * 0.5 / 1000**0.5 if 0 < share < 1 else 0)


def test_examples_are_right_and_follow_from_the_seed():
    draws = [[draw_example(TASK, 0.5, rng) for _ in range(50)] for rng in (random.Random(2), random.Random(2))]
    assert draws[0] == draws[1]
    assert sum(TASK.reward(*pair) for pair in draws[0]) >= 49


@pytest.mark.parametrize(
    ("text", "right"), [("#3", 1), ("1;3#3", 1), ("##3", 0), ("3", 0), ("1;3#", 0), ("", 0), (" #3", 0)]
)
def test_the_grade_accepts_exactly_the_two_forms(text, right):
    assert TASK.reward((1, 2), text) == right


def test_each_aggregation_is_that_of_its_method():
    batch = random_batch()
    for name, other in (("seq", "grpo"), ("token", "grpo@aggregation=token"), ("balanced", "balanced_agg")):
        logp = moved_logps(batch)
        ours = loss_and_gradient(ton(f"@aggregation={name}"), batch, logp)
        theirs = loss_and_gradient(MethodSpec.parse(other).build(), batch, logp)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def warmed(tiny, text):
    copied = training_copy(tiny)
    ton(text).warm_up(copied, 0)
    return copied.model


def test_supervised_steps_teach_both_forms_and_none_leave_the_model_alone(tiny):
    rng = random.Random(3)
    problems, responses = map(list, zip(*(draw_example(TASK, 0.5, rng) for _ in range(16)), strict=True))
    held = Encoded.of(tiny, TASK, problems, responses)
    untouched, taught = warmed(tiny, "@sft_steps=0"), warmed(tiny, "@sft_steps=15@sft_learning_rate=0.01")
    assert all(torch.equal(a, b) for a, b in zip(untouched.parameters(), tiny.model.parameters(), strict=True))
    assert held.logps(taught).sum() > held.logps(untouched).sum()
    again = warmed(tiny, "@sft_steps=15@sft_learning_rate=0.01")
    assert all(torch.equal(a, b) for a, b in zip(taught.parameters(), again.parameters(), strict=True))


def test_skips_are_counted_by_the_number_of_digits(tiny):
    method = ton("@max_new_tokens=3")
    found = SkipsByLength(method, problems=30, samples=2).measure(tiny)
    shares = {(m.metric, m.phase): m for m in found}
    assert {phase for _, phase in shares} <= {f"{n} digits" for n in range(2, 7)}
    assert sum(m.n for m in found if m.metric == "skipped_thoughts") == 30
    assert all(0 <= m.value <= 1 for m in found if m.metric != "response_tokens")


def test_checks(tiny):
    assert [f"{r.name}: {r.reason}" for r in run_checks(ton(), tiny) if not r.passed] == []
