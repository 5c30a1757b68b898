"""Boundary scores on cases counted by hand."""

import pytest

from harness.kinds.tokenizer.boundaries import boundary_scores


def test_cuts_and_pieces_are_counted():
    # Cuts after 2 and 4 against cuts after 3 and 4; the last piece is a piece of both.
    scores = boundary_scores([["ab", "cd", "e"]], [["abc", "d", "e"]])
    assert (scores.precision, scores.recall, scores.f1) == (0.5, 0.5, 0.5)
    assert scores.exact == 1 / 3


def test_counts_add_up_over_texts():
    scores = boundary_scores([["a", "b"], ["abcd"]], [["a", "b"], ["ab", "cd"]])
    assert (scores.precision, scores.recall, scores.exact) == (1.0, 0.5, 0.5)


def test_nothing_to_cut_is_right():
    assert boundary_scores([["a"], []], [["a"], []]).f1 == 1.0
    assert boundary_scores([["a", "b"]], [["ab"]]).f1 == 0.0


def test_other_texts_are_refused():
    with pytest.raises(ValueError, match="spell texts"):
        boundary_scores([["ab"]], [["abc"]])
