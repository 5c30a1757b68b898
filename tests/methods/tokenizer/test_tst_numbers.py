"""Triadic suffix tokenization: exact values, lossless numerals, equal ids for equal numbers."""

import random
from fractions import Fraction

import pytest

from harness.kinds.checking import run_checks
from harness.kinds.tokenizer.numbers import chunk, iter_numbers
from methods.tokenizer.tst_numbers import Group, TstNumbers, groups, value

PAPER = TstNumbers(mode="paper")


def numerals(count, seed=0):
    rng = random.Random(seed)
    for _ in range(count):
        whole = "".join(rng.choices("0123456789", k=rng.randrange(1, 22)))
        yield whole + ("." + "".join(rng.choices("0123456789", k=rng.randrange(1, 18))) if rng.random() < 0.5 else "")


def groups_in(text, method=PAPER):
    return method.groups_of(next(iter_numbers(text, plain=method.mode == "lossless")))


def test_the_papers_example():
    assert groups_in("12345678.1234") == [*zip(("12", "345", "678", "123", "400"), (2, 1, 0, -1, -2), strict=True)]
    assert groups_in("12345678.1234", TstNumbers())[-1] == Group("4", -2)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_groups_stand_for_the_number_exactly(size):
    for text in numerals(400):
        integer, _, fraction = text.partition(".")
        assert value(groups(integer, fraction, size), size) == Fraction(text)
        assert [g.digits for g in groups(integer, "", size)] == chunk(integer, size, from_right=True)


def test_groups_that_no_number_has_are_rejected():
    held = groups("1234567", "1234", 3)
    for wrong in (held[::-1], held[1:2] + held[3:], held[:2], held[3:], [], [Group("1", 1), Group("2", 0)]):
        with pytest.raises(ValueError):
            value(wrong, 3)
    with pytest.raises(ValueError):
        value([Group("1", 0), Group("12", -1), Group("3", -2)], 3)


@pytest.mark.parametrize("option", ["A", "B"])
@pytest.mark.parametrize("size", [1, 3])
def test_any_numeral_comes_back_as_it_was_written(tiny, option, size):
    made = TstNumbers(option=option, group_size=size).make(tiny.tokenizer, None)
    text = " ".join(numerals(25_000))
    ids = made.encode(text)
    assert made.decode(ids) == text and len(ids) < len(text) * (2 if size == 1 else 1)


def test_equal_numbers_have_equal_ids(tiny):
    made = PAPER.make(tiny.tokenizer, None)
    for same in (
        ("0.1", "0.10", "0.1000", "1e-1", "00.1"),
        ("1234567", "1,234,567", "1.234567e6", "1234567.0", "0001234567"),
        ("0", "0.000", "000", "0e3"),
        ("0.00000000123", "1.23e-9"),
    ):
        assert len({tuple(made.encode(text)) for text in same}) == 1, same
    assert made.encode("0.1") != made.encode("0.01") and made.encode("1000") != made.encode("1")
    assert made.decode(made.encode("-1.5e3% of $2,000.25")) == "-1500% of $2000.250"


def test_the_same_digits_at_another_place_are_another_token(tiny):
    made = TstNumbers().make(tiny.tokenizer, None)
    high, low = made.encode("123123")
    assert high != low and made.token_bytes(high) == made.token_bytes(low) == b"123"
    marked = TstNumbers(option="A").make(tiny.tokenizer, None)
    ids = marked.encode("123123")
    assert len(ids) == 3 and ids[0] == ids[2] and marked.token_bytes(ids[1]) == b""


def test_the_vocabulary_holds_every_level(tiny):
    plain = tiny.tokenizer.vocab_size
    assert TstNumbers().make(tiny.tokenizer, None).vocab_size == plain + 11 * 1110
    assert TstNumbers(option="A").make(tiny.tokenizer, None).vocab_size == plain + 1110 + 10


def test_the_leading_level_grows_with_the_number():
    levels = [groups_in(str(10**n))[0].level for n in range(18)]
    assert levels == sorted(levels) and levels[-1] == 5


def test_beyond_the_range_and_without_digits_the_base_tokenizer_writes(tiny):
    for mode in ("lossless", "paper"):
        made = TstNumbers(mode=mode).make(tiny.tokenizer, None)
        for text in ("1" * 19, "0." + "1" * 16, "7" * 5000, "no digits, \u0663 \u00b2."):
            assert made.encode(text)[-1] < 256 and made.decode(made.encode(text)) == text
    assert made.encode("1e99999999")[-1] < 256


@pytest.mark.parametrize("method", [TstNumbers(), TstNumbers(option="A"), PAPER], ids=lambda m: m.signature)
def test_the_checks_of_its_kind_hold(tiny, method):
    results = run_checks(method, tiny)
    assert not [f"{r.name}: {r.reason}" for r in results if not r.passed]
