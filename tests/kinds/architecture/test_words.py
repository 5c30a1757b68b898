"""Where words begin, and the ids of a text of words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.kinds.architecture.words import LONGEST, RULES, WordBytes, words
from harness.subjects.tiny import ByteIds

TEXTS = st.text(st.one_of(st.sampled_from("ab AB.,( \n1=$'-_\t\r "), st.characters(exclude_categories=["Cs"])))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the cat  sat\n\non", ["the ", "cat  ", "sat\n\n", "on"]),
        ("  lead", ["  ", "lead"]),
        ("", []),
    ],
)
def test_blanks_end_a_word(text, expected):
    assert list(words(text, RULES["space"])) == expected


# What the released splitter 0.1.10 gives.
@pytest.mark.parametrize(
    "expected",
    [
        ["Hello,", " world!"],
        ["what?!", " yes"],
        ["a", "   ", "b", " c"],
        ["a", "\t", "b"],
        ["a", " ", "\t", "b"],
        ["a", "\n", "\n", "b"],
        ["a", "\r\n", "b"],
        ["a", "\u00a0", "b"],
        ["Hello", "World", " HTTPServer"],
        ["3.", "14", " foo_", "bar"],
        ["f(", "x)", " [", "a]", " (", "b)"],
        ["((", "a"],
        ["x", " =", " {", "1:", " 2}"],
        ["x", "+", "=", "1"],
        ["=(", "a"],
        ["$", "5.", "00"],
        ["don'", "t", " stop"],
        ["i", "Phone15Pro"],
        ["word", " )", "next"],
        ["Hi", "\U0001f600", " you"],
        ["\u65e5", "\u672c", "\u3072", "\u3089", "\u30ab\u30bf\u30ab\u30ca", " \u3067", "\u3059"],
        ["\u0928\u092e\u0938\u094d\u0924\u0947", " \u0926\u0941\u0928\u093f\u092f\u093e"],
        ["\u00e9\u0301a"],
        ["\u0301", "a"],
    ],
)
def test_parts_are_those_of_the_released_splitter(expected):
    assert list(words("".join(expected), RULES["parts"])) == expected


@given(TEXTS, TEXTS, st.sampled_from(sorted(RULES)))
@settings(max_examples=300, deadline=None)
def test_words_are_lossless_short_and_stay_when_the_text_goes_on(text, more, name):
    rule = RULES[name]
    made = list(words(text, rule))
    assert "".join(made) == text and all(0 < len(word.encode()) <= LONGEST for word in made)
    longer = list(words(text + more, rule))
    assert longer[: max(0, len(made) - 1)] == made[:-1]
    tokenizer = WordBytes(name)
    ids = tokenizer.encode(text)
    assert tokenizer.encode(text + more)[: len(ids)] == ids
    assert tokenizer.decode(ids) == text and ids.count(tokenizer.end_of_word) == max(0, len(made) - 1)


def test_a_long_word_is_cut_between_characters():
    made = list(words("\u00e9" * 40, RULES["space"], longest=7))
    assert made == ["\u00e9" * 3] * 13 + ["\u00e9"]


def test_an_end_of_word_is_an_id_without_bytes():
    tokenizer = WordBytes("space")
    assert (tokenizer.vocab_size, tokenizer.end_of_word, tokenizer.token_bytes(258)) == (259, 258, None)
    assert tokenizer.encode("a b") == [97, 32, 258, 98]
    assert (tokenizer.prefix_id, tokenizer.eos_ids) == (ByteIds.prefix_id, ByteIds.eos_ids)
