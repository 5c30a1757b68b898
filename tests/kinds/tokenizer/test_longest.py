"""Longest match: what it takes, and that its work grows with the text alone."""

from harness.kinds.tokenizer.longest import LongestMatch, longest_first
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
