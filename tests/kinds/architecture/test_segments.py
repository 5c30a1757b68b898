"""Where segments begin, and the tables made of them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.kinds.architecture.segments import entropies, lay_out, segment_lengths


@pytest.mark.parametrize(
    ("entropy", "lengths"),
    [
        # 0.5 < 0.3 * 2; 0.7 is not; 0.2 < 0.3 * 0.7; 0.04 is sure; then the segment of 0.7 has room for one more.
        ([2.0, 0.5, 0.7, 0.2, 0.04, 0.1], [2, 4]),
        # The first token opens a segment whatever its entropy.
        ([0.01, 0.02, 0.03, 0.01, 0.04, 0.0], [4, 2]),
        # A sure token opens the segment, so hardly anything is below a third of it.
        ([0.04, 0.06, 0.019], [1, 2]),
        # Nothing falls enough.
        ([1.0, 1.0, 0.31, 0.3], [1, 1, 1, 1]),
        ([3.0], [1]),
        ([], []),
    ],
)
def test_the_rule_by_hand(entropy, lengths):
    assert segment_lengths(entropy, 4) == lengths


def test_the_highest_entropy_counts_and_not_the_first():
    # 0.049 joins a segment that began with 0.0; a third of it is less than 0.06, which joins nothing.
    assert segment_lengths([0.0, 0.049, 0.06, 0.01], 4) == [2, 2]
    # The last is below 0.3 times the first, though above 0.3 times the one before it.
    assert segment_lengths([1.0, 0.2, 0.25, 0.29], 4) == [4]


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 6))
def test_segments_partition_the_answer(entropy, longest):
    lengths = segment_lengths(entropy, longest)
    assert sum(lengths) == len(entropy) and all(1 <= length <= longest for length in lengths)


def test_entropies_belong_to_the_token_that_comes():
    logits = torch.full((1, 3, 8), -1e4)
    logits[0, 0] = 0.0
    logits[0, 1, 5] = 1e4
    assert entropies(logits)[0].tolist() == pytest.approx([0.0, math.log(8), 0.0], abs=1e-5)


def test_the_layout_of_two_rows():
    layout = lay_out([2, 1], [[3, 1], [1, 2]], 7, torch.device("cpu"))
    assert layout.slot_BT.tolist() == [[0, 1, 2, 2, 2, 3, 4], [0, 1, 2, 2, 3, 4, 5]]
    assert layout.place_BT.tolist() == [[0, 0, 0, 1, 2, 0, 0], [0, 0, 0, 1, 0, 0, 0]]
    assert layout.size_BM.tolist() == [[1, 1, 3, 1, 0, 0], [1, 1, 2, 0, 0, 0]]
    assert layout.end_BM[0, :4].tolist() == [0, 1, 4, 5] and layout.end_BM[1, :3].tolist() == [0, 1, 3]
    assert layout.answer_BT.int().tolist() == [[0, 0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 0, 0, 0]]
    assert layout.known_BT.int().tolist() == [[0, 0, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0, 0]]
    assert layout.last_BT[layout.answer_BT].int().tolist() == [0, 0, 1, 1, 1, 0, 1]
