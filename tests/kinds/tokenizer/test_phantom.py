"""Outcomes and classes of spans whose segmentation is prescribed."""

import itertools

import pytest

from harness.kinds.tokenizer.phantom import CLASSES, artefact, cuts_of, first_word, outcome, word_of


def span(text):
    return tuple(part.encode() for part in text.split("|"))


@pytest.mark.parametrize(
    ("source", "output", "expected"),
    [
        (" word", "\nword", "whitespace_kind"),
        (" word", "\t|word", "whitespace_kind"),  # the kind is looked at before the split
        (" word", " |word", "whitespace_detached"),
        (" word", "  word", "whitespace_detached"),
        (" word", "word", "whitespace_shift"),
        (" wo|rd", "wo|rd", "whitespace_shift"),
        (" NASA", " NA|SA", "acronym_split"),
        (" words", " word|s", "tail_split"),
        (" box|es", " boxes", "tail_split"),
        (" readable", " read|able", "morpheme_boundary"),
        (" undoing", " un|doing", "morpheme_boundary"),
        (" Berlin", " Ber|lin", "proper_noun"),
        (" kitchen", " kit|chen", "intra_word"),
        (" read|able", " readable", "intra_word"),  # no new cut, so none at an affix
        (" word", "wo|rd", "intra_word"),  # a shift and a cut
        (" able", " a|ble", "intra_word"),
        (" unit", " un|it", "intra_word"),  # the stem is too short
    ],
)
def test_a_prescribed_segmentation_has_its_class(source, output, expected):
    assert artefact(span(source), span(output)) == expected
    assert outcome([1], [2], span(source), span(output)) == "phantom"


def test_every_class_is_met():
    seen = set()
    for text in ("word", "NASA", "words", "readable", "Berlin", "kitchen"):
        for lead in (" ", "\n"):
            for cut in range(1, len(text)):
                seen.add(artefact(span(f" {text}"), span(f"{lead}{text[:cut]}|{text[cut:]}")))
            seen.add(artefact(span(f" {text}"), span(f"{lead}|{text}")))
    seen.add(artefact(span(" word"), span("word")))
    assert seen == set(CLASSES)


def test_one_token_a_character_leaves_blanks_alone_to_differ():
    words = ["words", "NASA", "Berlin"]
    for word, one, other in itertools.product(words, (" ", "\n", "  ", ""), (" ", "\n", "  ", "")):
        if one != other:
            found = artefact(*(span("|".join([*lead, *word])) for lead in (one, other)))
            assert found in CLASSES[:3]


def test_outcomes():
    source = span(" the|re")
    assert outcome([1, 2], [1, 2], source, source) == "unchanged"
    assert outcome([1, 2], [3], source, span(" there")) == "phantom"
    assert outcome([1, 2], [3], source, span(" then")) == "replaced"
    assert outcome([1, 2], [3], source, None) == "unaligned"


def test_the_first_word_ends_where_a_token_shows_it():
    assert first_word(span(" wo|rd|.")) == span(" wo|rd")
    assert first_word(span(" wo|rd| is")) == span(" wo|rd")
    assert first_word(span("\n| wo|rd|, and")) == span("\n| wo|rd")
    assert first_word(span(" wo|rd")) is None  # it may go on
    assert first_word(span(" word,| and")) is None  # no clean word
    assert first_word(span(" [|word|]")) is None and first_word(span(".| a| b")) is None
    assert first_word([b" word", b""]) == [b" word"]  # a special id ends it


def test_cuts_are_places_of_the_word():
    assert cuts_of(span(" |wo|r|d")) == {2, 3} and cuts_of(span(" word")) == frozenset()
    assert word_of(span(" |wo|rd")) == b"word"
