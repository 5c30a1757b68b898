"""The toy languages, their splits and grades, the tasks made of them, and the documents of ``chain_sum``."""

import random
import re
from statistics import mean

import pytest

from harness.errors import UsageError
from harness.subjects.chain_sum_text import (
    ALPHABET,
    GAP,
    NO_GAP,
    ChainSumText,
    CharIds,
    TraceStyle,
)
from harness.subjects.multi_select_text import InvertedSelectText, MultiSelectText
from harness.subjects.tokenizer import Tokenizer
from harness.subjects.toy_text import is_held_out
from harness.toolkit.chain_sum import documents
from harness.toolkit.pref_tokens import PrefText
from harness.toolkit.verifiable import TASKS, SumText, prompt_ids, verifiable_task


def lengths(style, count=4000):
    rng = random.Random(0)
    right, wrong = [], []
    for _ in range(count):
        written = ChainSumText(style=style)
        operands = written.draw(rng, held_out=False)
        text = written.write(operands, rng)
        (right if written.grade(operands, text) else wrong).append(len(text))
    return right, wrong


def test_tokenizer_round_trip_and_protocol():
    tokenizer = CharIds()
    assert isinstance(tokenizer, Tokenizer)
    ids = tokenizer.encode("3+8=1;2#4")
    assert tokenizer.decode([tokenizer.prefix_id, *ids, *tokenizer.eos_ids]) == "3+8=1;2#4"
    assert b"".join(tokenizer.token_bytes(i) for i in range(len(ALPHABET))) == ALPHABET.encode()
    assert tokenizer.token_bytes(tokenizer.eos_ids[0]) is None
    assert tokenizer.vocab_size == max(*tokenizer.eos_ids, tokenizer.prefix_id) + 1


def test_tokenizer_names_the_foreign_character():
    with pytest.raises(UsageError, match="'x'"):
        CharIds().encode("3+x")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("3;1;6;5#5", True),
        ("#5", True),
        ("3;1;6;5#6", False),
        ("3;1;6;5#5#5", False),
        ("3;1;6;5", False),
        ("3;1;6;5#55", False),
        ("", False),
        ("5+5#5", False),
    ],
)
def test_grades(text, right):
    assert ChainSumText().grade((3, 8, 5, 9), text) == right


def test_flawless_trace_is_running_sums():
    assert ChainSumText(style=TraceStyle(wrong=0, recheck=0)).write((3, 8, 5, 9), random.Random(0)) == "3;1;6;5#5"


def test_a_trace_without_slips_is_wrong_only_by_its_sums():
    rng = random.Random(0)
    text = ChainSumText(style=TraceStyle(wrong=0, recheck=0.9, slip=0))
    assert all(text.grade((3, 8, 5, 9), text.write((3, 8, 5, 9), rng)) for _ in range(50))


def test_slips_make_wrong_traces_longer():
    right, wrong = lengths(GAP)
    assert mean(wrong) - mean(right) > 1.5
    right, wrong = lengths(NO_GAP)
    assert abs(mean(wrong) - mean(right)) < 0.5


@pytest.mark.parametrize("name", sorted(TASKS.keys() - {"pref_tokens"}))
def test_splits_share_no_prompt_and_written_responses_are_right_and_wrong(name):
    rng = random.Random(0)
    train, test = verifiable_task(name), verifiable_task(name, held_out=True)
    seen, held = ({task.prompt(task.draw(rng)) for _ in range(1500)} for task in (train, test))
    assert not seen & held and all(map(is_held_out, held))
    problems = [train.draw(rng) for _ in range(300)]
    grades = [train.reward(problem, train.written(problem, rng)) for problem in problems]
    assert 0.15 < mean(grade == 1 for grade in grades) < 0.85


def test_prompts_of_preferences_are_split_too():
    rng = random.Random(0)
    seen, held = ({PrefText().draw(rng, held_out) for _ in range(500)} for held_out in (False, True))
    assert len(seen) > 50 and len(held) > 10 and not seen & held


def test_mixed_sums_have_two_to_six_digits():
    rng = random.Random(0)
    counts = {len(verifiable_task("chain_sum_mixed").draw(rng)) for _ in range(300)}
    assert counts == set(range(2, 7))


@pytest.mark.parametrize(
    ("text", "hard", "soft"),
    [("7;9", 1, 1), ("9;7", 1, 1), ("7", 0, 0.5), ("7;4", 0, 0), ("7;7", 0, 0), ("", 0, 0), ("7;", 0, 0)],
)
def test_grades_of_multi_select(text, hard, soft):
    problem = (5, (4, 7, 9, 2))
    assert MultiSelectText().prompt(problem) == "5+4;7;9;2="
    assert MultiSelectText().grade(problem, text) == hard and MultiSelectText(soft=True).grade(problem, text) == soft


def test_an_inverted_question_has_the_complement_as_its_answer_and_all_have_several():
    plain, inverted, rng = MultiSelectText(), InvertedSelectText(), random.Random(0)
    negated = 0
    for _ in range(400):
        problem = inverted.draw(rng, held_out=False)
        one = plain.right(problem)
        assert len(inverted.right(problem)) >= 2
        if len(one) == 1:
            negated += 1
            assert inverted.right(problem) == frozenset(problem[1]) - one
            assert inverted.prompt(problem) == plain.prompt(problem).replace("+", "#")
        else:
            assert inverted.right(problem) == one and inverted.prompt(problem) == plain.prompt(problem)
    assert 40 < negated < 360


@pytest.mark.parametrize(
    ("text", "hard", "soft"),
    [("4;2;1", 1, 1), ("1;4;2", 1, 1), ("4", 0, 1 / 3), ("4;2", 0, 2 / 3), ("7", 0, 0), ("4;2;1;7", 0, 0)],
)
def test_grades_of_an_inverted_question(text, hard, soft):
    problem = (5, (4, 7, 2, 1))
    grades = [InvertedSelectText(soft=soft_).grade(problem, text) for soft_ in (False, True)]
    assert grades == pytest.approx([hard, soft]) and InvertedSelectText().prompt(problem) == "5#4;7;2;1="


def test_the_last_number_of_a_spoken_sum_counts():
    text = SumText()
    assert text.grade((20, 22), "20 + 22 is 42.") == 1 and text.grade((20, 22), "42, or 43") == 0
    assert text.grade((20, 22), "I do not know") == 0


def test_only_chat_tasks_are_put_into_a_request(tiny):
    rng = random.Random(0)
    plain, spoken = verifiable_task("chain_sum"), verifiable_task("sums")
    for task in (plain, spoken):
        problem = task.draw(rng)
        assert tiny.tokenizer.decode(prompt_ids(tiny, task, problem)).endswith(task.prompt(problem))


def test_documents_are_held_out_distinct_and_seeded():
    rows = documents(n=120, seed=3, version=1.0)["test"]
    assert len(set(rows["question"])) == 120
    for question, answer in zip(rows["question"], rows["answer"], strict=True):
        operands = tuple(int(d) for d in re.findall(r"\d", question))
        assert is_held_out(question)
        assert ChainSumText().prompt(operands) == question
        assert int(answer) == sum(operands) % 10
    assert list(rows["question"]) == list(documents(n=120, seed=3)["test"]["question"])
    assert list(rows["question"]) != list(documents(n=120, seed=4)["test"]["question"])


def test_too_many_documents_are_refused():
    with pytest.raises(UsageError, match="too few"):
        documents(n=50, operands=2)
