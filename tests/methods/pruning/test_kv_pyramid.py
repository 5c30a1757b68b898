"""PyramidKV's budgets: their sum, their slope, and SnapKV as the flat case."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.pruning.kv_pyramid import KvPyramid, layer_budgets
from methods.pruning.kv_snapkv import KvSnapKV


@given(
    length=st.integers(1, 3000),
    share=st.floats(0.001, 1),
    window=st.integers(1, 64),
    beta=st.floats(1, 50),
    layers=st.integers(1, 40),
)
def test_the_layers_share_one_total_and_none_exceeds_the_prompt(length, share, window, beta, layers):
    keep = max(1, int(share * length))
    budgets = layer_budgets(keep, length, window, beta, layers)
    assert sum(budgets) == layers * keep and len(budgets) == layers
    assert max(budgets) <= length and min(budgets) >= min(window, keep) - 1
    assert all(low <= high + 1 for high, low in itertools.pairwise(budgets))


def test_a_hand_made_pyramid():
    """K = 60, W = 20: b_min = 40 / 4 = 10, b_max = 70."""
    assert layer_budgets(60, 1000, 20, 4.0, 3) == [90, 60, 30]
    # A prompt of 80 leaves 60 before the window, so the top is cut and the bottom raised.
    assert layer_budgets(60, 80, 20, 4.0, 3) == [80, 60, 40]


@pytest.mark.parametrize("padding", [(0, 0), (0, 11)])
def test_with_beta_1_it_is_snapkv(make_view, kept_slots, padding):
    for layer in range(4):
        view = make_view(padding=padding, layer=layer)
        settings = {"keep_ratio": 0.4, "window": 4}
        assert kept_slots(KvPyramid(beta=1, **settings), view) == kept_slots(KvSnapKV(**settings), view)


def test_lower_layers_keep_more_of_the_same_ranking(make_view, kept_slots):
    sets = [
        kept_slots(KvPyramid(keep_ratio=0.4, window=4), replace(make_view(), layer=layer))[0][0] for layer in range(4)
    ]
    assert [len(one) for one in sets] == sorted((len(one) for one in sets), reverse=True)
    assert all(set(small) < set(large) for large, small in itertools.pairwise(sets))
