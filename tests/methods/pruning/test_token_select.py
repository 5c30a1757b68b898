"""TokenSelect's votes, its sets and the reuse of a choice."""

from dataclasses import replace

import pytest
import torch

from harness.subjects.views import QueryView
from methods.pruning.token_select import TokenSelect, soft_vote


def made_view(slots=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    queries, keys = (torch.randn(1, heads, n, 8, generator=generator) for heads, n in ((4, 1), (2, slots)))
    return QueryView(0, 1, "decode", queries, keys, None, slots - 1, 8**-0.5, {})


def chosen(method, view):
    selection = method.select(view)
    assert selection.index_BSTK.shape[1] == 1
    return selection.index_BSTK[0, 0, 0].tolist()


def test_each_head_has_one_vote_and_spreads_it_over_the_candidates():
    assert float(soft_vote(torch.randn(4, 12)).sum()) == pytest.approx(4.0)
    one = torch.randn(1, 12)
    assert soft_vote(one).argsort().tolist() == one[0].argsort().tolist()


def test_the_set_is_sinks_window_and_the_most_voted():
    view, method = made_view(), TokenSelect(tokens=20, num_sinks=2, window=6)
    votes = torch.zeros(60)
    for head in range(4):
        votes[2:54] += (view.keys_BGND[0, head // 2, 2:54] @ view.queries_BHTD[0, head, 0]).softmax(0)
    best = sorted(range(2, 54), key=lambda j: -votes[j].item())[:12]
    assert sorted(chosen(method, view)) == sorted([0, 1, *best, *range(54, 60)])


def test_one_confident_head_outvotes_the_others():
    """A key along one head's query is read, though the other heads turn away from it."""
    view = made_view()
    queries, keys = view.queries_BHTD.clone(), view.keys_BGND.clone()
    queries[0, 1] = -0.1 * queries[0, 0]
    keys[0, 0, 30] = 60 * queries[0, 0, 0]
    assert 30 in chosen(
        TokenSelect(tokens=12, num_sinks=2, window=6), replace(view, queries_BHTD=queries, keys_BGND=keys)
    )


def test_the_order_of_the_heads_does_not_matter():
    view, method = made_view(), TokenSelect(tokens=20, num_sinks=2, window=6)
    turned = replace(view, queries_BHTD=view.queries_BHTD[:, [2, 3, 0, 1]], keys_BGND=view.keys_BGND.flip(1))
    assert sorted(chosen(method, turned)) == sorted(chosen(method, view))


def test_scaled_heads_vote_less_sharply():
    """Two heads that are fairly sure of slot 31 outvote one that is sure of 30; scaled down they no longer do."""
    view = made_view()
    queries, keys = torch.zeros(1, 4, 1, 8), torch.zeros(1, 2, 60, 8)
    queries[0, :, 0, 0] = torch.tensor([8.0, 0.0, 1.0, 1.0])
    keys[0, 0, 30, 0], keys[0, 1, 31, 0] = 1.0, 4.2
    view = replace(view, queries_BHTD=queries, keys_BGND=keys)
    first = {
        scale: next(j for j in chosen(TokenSelect(tokens=9, num_sinks=2, window=6, scale=scale), view) if 2 <= j < 54)
        for scale in ("none", "sqrt")
    }
    assert first == {"none": 31, "sqrt": 30}


def test_a_budget_within_sinks_and_window_is_spent_on_both():
    assert sorted(chosen(TokenSelect(tokens=7, num_sinks=2, window=6), made_view())) == [0, 1, *range(55, 60)]
    assert sorted(chosen(TokenSelect(tokens=1, num_sinks=2, window=6), made_view())) == [59]


def test_a_choice_is_used_again_while_the_queries_stay_alike():
    """Old middle tokens stay, the window moves on, and tokens that left it meanwhile are not seen."""
    view, method = made_view(), TokenSelect(tokens=20, num_sinks=2, window=6, reuse=0.9)
    first = chosen(method, view)
    generator = torch.Generator().manual_seed(9)
    longer = torch.cat([view.keys_BGND, torch.randn(1, 2, 3, 8, generator=generator)], 2)
    alike = replace(view, keys_BGND=longer, queries_BHTD=view.queries_BHTD * 1.5, committed=62)
    again = method.select(alike)
    middle = [j for j in first if 2 <= j < 54]
    assert again.index_BSTK[0, 0, 0].tolist() == [0, 1, *middle, *range(57, 63)] and again.scored == 0
    other = method.select(replace(alike, queries_BHTD=-view.queries_BHTD))
    assert other.scored == 0.5 and len(other.index_BSTK[0, 0, 0]) == 20


def test_above_1_nothing_is_ever_used_again_and_below_minus_1_everything():
    for reuse, made in ((1.1, 3), (-1.1, 1)):
        view, method = made_view(), TokenSelect(tokens=20, num_sinks=2, window=6, reuse=reuse)
        queries = [view.queries_BHTD, view.queries_BHTD, -view.queries_BHTD]
        assert sum(method.select(replace(view, queries_BHTD=q)).scored > 0 for q in queries) == made
