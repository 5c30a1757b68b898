"""The budget, the ranking of slots and the window's attention against their obvious versions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.kinds.pruning.base import keep_count, lowest_slots, rank_slots, window_attention
from harness.subjects.views import LayerView


def view_of(queries, keys, valid_BN=None):
    """A layer's view with made-up positions."""
    batch, _, slots, _ = keys.shape
    real = torch.ones(batch, slots, dtype=torch.bool) if valid_BN is None else valid_BN
    return LayerView(
        layer=0,
        num_layers=1,
        phase="prefill",
        queries_BHTD=queries,
        keys_BHND=keys,
        values_BHND=keys,
        valid_BHN=None if valid_BN is None else valid_BN[:, None],
        position_BHN=(real.cumsum(1) - 1).clamp(min=0)[:, None],
        seen_B=real.sum(1),
        prompt_B=real.sum(1),
        scaling=queries.shape[-1] ** -0.5,
        memory={},
    )


@given(ratio=st.floats(1e-6, 1.0), n=st.integers(1, 5000))
def test_the_budget_is_the_rounded_down_share_and_one_at_least(ratio, n):
    assert int(keep_count(ratio, torch.tensor([n]))) == max(1, math.floor(ratio * n + 1e-9))


def test_a_share_that_is_whole_is_not_rounded_away():
    assert keep_count(0.29, torch.tensor([100])).tolist() == [29]  # 0.29 * 100 is 28.999999999999996
    assert keep_count(1.0, torch.tensor([1, 7])).tolist() == [1, 7]


@settings(max_examples=60)
@given(data=st.data(), heads=st.integers(1, 3), slots=st.integers(1, 12), rows=st.integers(1, 3))
def test_ranking_equals_a_plain_sort(data, heads, slots, rows):
    """Scores with many ties, rows with padding on the left, a budget for each row."""
    numbers = st.sampled_from([-1.0, 0.0, 0.5, 2.0, math.inf])
    scores = torch.tensor([[[data.draw(numbers) for _ in range(slots)] for _ in range(heads)] for _ in range(rows)])
    lengths = [data.draw(st.integers(1, slots)) for _ in range(rows)]
    budgets = [data.draw(st.integers(1, slots)) for _ in range(rows)]
    valid = torch.arange(slots)[None] >= slots - torch.tensor(lengths)[:, None]
    keep = rank_slots(scores, valid[:, None], torch.tensor(budgets))
    if keep is None:
        assert lengths == [slots] * rows and min(budgets) == slots
        return
    index, used = keep
    for row in range(rows):
        for head in range(heads):
            real = range(slots - lengths[row], slots)
            best = sorted(real, key=lambda j: (-scores[row, head, j].item(), j))[: budgets[row]]
            mine = index[row, head] if used is None else index[row, head][used[row, 0]]
            assert mine.tolist() == sorted(best)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), heads=st.integers(1, 3), slots=st.integers(2, 12), rows=st.integers(1, 3))
def test_the_lowest_slots_are_those_that_ranking_leaves_out(data, heads, slots, rows):
    numbers = st.sampled_from([-1.0, 0.0, 0.5, 2.0, math.inf])
    scores = torch.tensor([[[data.draw(numbers) for _ in range(slots)] for _ in range(heads)] for _ in range(rows)])
    lengths = [data.draw(st.integers(2, slots)) for _ in range(rows)]
    count = data.draw(st.integers(1, min(lengths) - 1))
    valid = torch.arange(slots)[None] >= slots - torch.tensor(lengths)[:, None]
    index, used = rank_slots(scores, valid[:, None], torch.tensor(lengths) - count)
    dropped = lowest_slots(scores, valid[:, None], count).index_BHT
    for row in range(rows):
        for head in range(heads):
            kept = index[row, head] if used is None else index[row, head][used[row, 0]]
            both = [*kept.tolist(), *dropped[row, head].tolist()]
            assert sorted(both) == list(range(slots - lengths[row], slots))


@pytest.mark.parametrize("window", [1, 3, 20])
def test_window_attention_equals_the_loop(window):
    """Two rows, one with four padded places; query heads are grouped two to a key head."""
    generator = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(2, heads, 9, 8, generator=generator) for heads in (4, 2))
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[1, :4] = False
    ours = window_attention(view_of(queries, keys, valid), window)
    rows = min(window, 9)
    wanted = torch.zeros(2, 2, rows, 9)
    for row in range(2):
        first = 0 if row == 0 else 4
        for head in range(4):
            for place, query in enumerate(range(9 - rows, 9)):
                if query >= first:
                    seen = keys[row, head // 2, first : query + 1] @ queries[row, head, query] * 8**-0.5
                    wanted[row, head // 2, place, first : query + 1] += seen.softmax(-1) / 2
    torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=0)
