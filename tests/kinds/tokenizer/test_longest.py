"""Longest match: what it takes, and that its work grows with the text alone."""

from harness.kinds.tokenizer.longest import HORIZON, LongestMatch, LookAhead, longest_first
from harness.kinds.tokenizer.vocabulary import Specials, segments

SPECIALS = Specials(("<p>",), "<p>", ())


class Counted(dict):
    """A dictionary that counts how often it is asked."""

    asked = 0

    def __contains__(self, key):
        type(self).asked += 1
        return super().__contains__(key)


def test_units_come_longest_first_and_within_their_length():
    assert list(longest_first("abcd", 0, {"a", "ab", "abcd", "bc"}, 4)) == ["abcd", "ab", "a"]
    assert list(longest_first("abcd", 0, {"a", "ab", "abcd"}, 3)) == ["ab", "a"]
    assert list(longest_first("abcd", 1, {"a", "ab"}, 3)) == []


def test_text_is_read_from_the_left():
    made = LongestMatch("l", ["ab", "abc", "cd"], SPECIALS)
    assert segments(made, "abcd\u00e9") == [b"abc", b"d", b"\xc3", b"\xa9"]
    assert made.vocab_size == 260


def test_the_work_grows_with_the_text_and_not_with_its_square():
    made = LongestMatch("l", ["aaaaaaaa", "ab"], SPECIALS)
    asked = []
    for times in (1, 10):
        made._ids = Counted(made._ids)
        Counted.asked = 0
        made.encode("abaaac" * 50 * times)
        asked.append(Counted.asked)
    assert 9 * asked[0] < asked[1] <= 11 * asked[0] and asked[1] <= 3000 * 8


def ahead(units):
    ranks = {unit: i for i, unit in enumerate(units)}
    return LookAhead("a", [unit for unit in units if len(unit.encode()) > 1], ranks, SPECIALS)


def test_looking_ahead_takes_the_shorter_unit_where_its_way_is_better():
    assert segments(ahead([*"abc", "ab", "cd", "abc", "d"]), "abcd") == [b"ab", b"cd"]  # equal units, smaller ranks
    assert segments(ahead([*"abcd", "abc", "ab", "cd"]), "abcd") == [b"abc", b"d"]
    assert segments(ahead([*"abcd", "abc", "ab", "cde"]), "abcde") == [b"ab", b"cde"]  # fewer unknown characters
    assert segments(ahead([*"abcde", "abc", "ab", "cde"]), "abcde") == [b"ab", b"cde"]  # fewer units
    assert segments(ahead([*"abcde", "abc", "ab", "cd"]), "abce") == [b"abc", b"e"]


def test_a_single_byte_can_be_the_shorter_unit():
    assert segments(ahead([*"abcd", "bcd", "ab"]), "abcd") == [b"a", b"bcd"]
    assert segments(LongestMatch("l", ["bcd", "ab"], SPECIALS), "abcd") == [b"ab", b"c", b"d"]
    assert segments(ahead(["bcd", "ab"]), "abcd") == [b"ab", b"c", b"d"]  # a is no unit here


def test_ways_that_never_meet_leave_the_longest_and_cost_no_square():
    made = ahead(["ba", "a", "ab"])
    text = "ab" * 50
    assert segments(made, text) == [b"ab"] * 50
    asked = []
    for times in (4, 40):
        made._ranks = Counted(made._ranks)
        Counted.asked = 0
        made.encode(text * times)
        asked.append(Counted.asked)
    assert asked[1] <= 11 * asked[0] and asked[0] <= 4 * len(text) * HORIZON * 4
    # It is the horizon that stops them: near the end they meet, or the text does.
    assert made.decode(made.encode(text + "b")) == text + "b"


def test_the_work_does_not_grow_with_the_vocabulary():
    text, asked = "the number 012345 of 999999 units", []
    for count in (1000, 1_000_000):
        made = LongestMatch("l", [f"{n:06d}" for n in range(count)], SPECIALS)
        assert made.vocab_size == count + 257
        made._ids = Counted(made._ids)
        Counted.asked = 0
        ids = made.encode(text)
        asked.append(Counted.asked)
    assert made.decode(ids) == text and made.tokens[max(ids)] == b"999999"
    assert asked[1] <= asked[0]
