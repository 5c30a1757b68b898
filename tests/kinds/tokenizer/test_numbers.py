"""Numbers in a text: where they are, how they are cut, and what is left to the base tokenizer."""

import re

import pytest

from harness.errors import Refused
from harness.kinds.tokenizer.numbers import NumberTable, chunk, digit_strings, iter_numbers
from harness.kinds.tokenizer.vocabulary import special_names
from harness.subjects.tiny import ByteIds


def parts(text, plain=False):
    return [(n.sign, n.integer, n.fraction, n.exponent) for n in iter_numbers(text, plain)]


def test_parts_of_numbers():
    assert parts("-12.50 and 1,234,567.8e-9") == [("-", "12", "50", ""), ("", "1234567", "8", "-9")]
    assert parts("3-4") == [("", "3", "", ""), ("", "4", "", "")]
    assert parts("1,0000 12,34") == [("", x, "", "") for x in ("1", "0000", "12", "34")]
    assert parts("v3.11.7 2e5x") == [("", "3", "11", ""), ("", "7", "", ""), ("", "2", "", ""), ("", "5", "", "")]
    assert parts("none \u0663\u00b2") == []


def test_plain_numbers_cover_what_they_say():
    text = "-12.50 1,234e5 7."
    assert parts(text, plain=True) == [
        ("", *p, "") for p in (("12", "50"), ("1", ""), ("234", ""), ("5", ""), ("7", ""))
    ]
    for n in iter_numbers(text, plain=True):
        assert text[n.start : n.end] == n.integer + ("." + n.fraction if n.fraction else "")


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_chunks_join_to_the_number_and_have_their_lengths(size):
    for length in range(1, 12):
        digits = "9876543210123"[:length]
        left, right = chunk(digits, size, from_right=False), chunk(digits, size, from_right=True)
        assert "".join(left) == "".join(right) == digits
        assert [len(c) for c in left[:-1]] == [size] * (len(left) - 1) == [len(c) for c in right[1:]]
        assert len(right[0]) == (length % size or size) and len(left[-1]) == (length % size or size)
        assert (left == right) == (length % size == 0 or length <= size)
        if size == 3:
            assert left == re.findall(r"\d{1,3}", digits)
            assert right == re.findall(r"\d{1,3}(?=(?:\d{3})*\b)", digits)


def test_digit_strings_are_all_of_them():
    assert len(digit_strings(3)) == 1110 == len(set(digit_strings(3))) and "007" in digit_strings(3)


def test_the_base_tokenizer_writes_everything_else(incomplete):
    table = NumberTable(incomplete)
    seven = table.added("7")
    made = table.tokenizer("sevens", lambda n: [seven] if n.integer == "7" else None)
    text = "the cat 7 sat<|end|>"
    ids = made.encode(text)
    assert ids.count(seven) == 1 and made.decode(ids) == incomplete.decode(incomplete.encode("the cat ")) + "7 sat"
    assert made.eos_ids[0] == ids[-1] == special_names(made)["<|end|>"]
    assert [made.token_bytes(i) for i in ids[:2]] == [incomplete.token_bytes(i) for i in incomplete.encode("the cat ")][
        :2
    ]
    assert made.encode("") == [] and made.name == "native-sevens"


@pytest.mark.parametrize("plain", [True, False])
def test_a_number_is_cut_as_it_stands_in_its_text(plain):
    text = "a-5 -5 (+1) 1,234 12,345,6789 1,0000 2e5x 2e5 -1.5e-3, v3.11.7 5 -5 1,234"
    given = []
    made = NumberTable(ByteIds()).tokenizer("seen", lambda n: given.append(n) or list(b"#"), plain)
    written = bytes(made.encode(text))
    left = text
    for n in reversed(list(iter_numbers(text, plain))):
        left = left[: n.start] + n.sign + "#" + left[n.end :]
    assert written == left.encode()
    assert {n[2:] for n in given} == {n[2:] for n in iter_numbers(text, plain)} and len(given) == len(set(given))
    made.forget()
    assert bytes(made.encode(text)) == written and len(given) == 2 * len(set(given))


def test_a_tokenizer_that_writes_pieces_otherwise_is_refused():
    class Prefixing(ByteIds):
        def encode(self, text):
            return list(b" " + text.encode())

    with pytest.raises(Refused, match="when it is cut"):
        NumberTable(Prefixing())
