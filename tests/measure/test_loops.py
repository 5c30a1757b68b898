"""What counts as a loop at the end of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.loops import LEAST_TOKENS, REPEATS, ends_in_loop

BLOCK = [3, 1, 4, 1, 5, 9]


@pytest.mark.parametrize(
    ("tokens", "looped"),
    [
        ([7] * 16, True),
        ([7] * 15, False),
        ([1, 2, 3, *[7] * 16], True),
        ([*[7] * 30, 1], False),
        (BLOCK * 3, True),
        (BLOCK * 2 + BLOCK[:5], False),
        ([8, 8, *BLOCK * 3, 3, 1], True),
        (BLOCK[:2] * 8, True),
        (BLOCK[:2] * 7, False),
        (list(range(100)), False),
        ([*range(20)] * 3, True),
        ([*range(20)] * 2, False),
        ([], False),
    ],
)
def test_a_block_three_times_over_and_sixteen_tokens_at_the_end_are_a_loop(tokens, looped):
    assert ends_in_loop(tokens) is looped


def by_definition(tokens):
    """Every tail and every period, tried out."""
    for length in range(LEAST_TOKENS, len(tokens) + 1):
        tail = tokens[len(tokens) - length :]
        for period in range(1, length // REPEATS + 1):
            if all(a == b for a, b in zip(tail, tail[period:], strict=False)):
                return True
    return False


@given(st.lists(st.integers(0, 1), max_size=30), st.lists(st.integers(0, 1), max_size=7), st.integers(0, 6))
def test_it_agrees_with_the_definition(start, block, times):
    tokens = start + block * times
    assert ends_in_loop(tokens) == by_definition(tokens)
