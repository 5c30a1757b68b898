"""The language of ``chain_sum``, its splits, its grades and its documents."""

import random
import re
from statistics import mean

import pytest

from harness.errors import UsageError
from harness.subjects.chain_sum_text import (
    ALPHABET,
    GAP,
    NO_GAP,
    CharIds,
    TraceStyle,
    draw_operands,
    is_held_out,
    is_right,
    write_trace,
)
from harness.subjects.tokenizer import Tokenizer
from harness.toolkit.chain_sum import ChainSum, documents


def lengths(style, count=4000):
    rng = random.Random(0)
    right, wrong = [], []
    for _ in range(count):
        operands = draw_operands(rng, 4, held_out=False)
        text = write_trace(operands, rng, style)
        (right if is_right(operands, text) else wrong).append(len(text))
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
    assert is_right((3, 8, 5, 9), text) is right


def test_flawless_trace_is_running_sums():
    assert write_trace((3, 8, 5, 9), random.Random(0), TraceStyle(wrong=0, recheck=0)) == "3;1;6;5#5"


def test_a_trace_without_slips_is_wrong_only_by_its_sums():
    rng = random.Random(0)
    style = TraceStyle(wrong=0, recheck=0.9, slip=0)
    assert all(is_right((3, 8, 5, 9), write_trace((3, 8, 5, 9), rng, style)) for _ in range(50))


def test_slips_make_wrong_traces_longer():
    right, wrong = lengths(GAP)
    assert mean(wrong) - mean(right) > 1.5
    right, wrong = lengths(NO_GAP)
    assert abs(mean(wrong) - mean(right)) < 0.5


def test_splits_share_no_prompt():
    rng = random.Random(0)
    train = {draw_operands(rng, 4, held_out=False) for _ in range(2000)}
    test = {draw_operands(rng, 4, held_out=True) for _ in range(2000)}
    assert not train & test
    assert mean(is_held_out((a, b, c, d)) for a in range(10) for b in range(5) for c in range(5) for d in (3, 7)) > 0.2


def test_documents_are_held_out_distinct_and_seeded():
    rows = documents(n=120, seed=3, version=1.0)["test"]
    assert len(set(rows["question"])) == 120
    for question, answer in zip(rows["question"], rows["answer"], strict=True):
        operands = tuple(int(d) for d in re.findall(r"\d", question))
        assert is_held_out(operands)
        assert ChainSum(held_out=True).prompt(operands) == question
        assert int(answer) == sum(operands) % 10
    assert list(rows["question"]) == list(documents(n=120, seed=3)["test"]["question"])
    assert list(rows["question"]) != list(documents(n=120, seed=4)["test"]["question"])


def test_too_many_documents_are_refused():
    with pytest.raises(UsageError, match="too few"):
        documents(n=50, operands=2)
