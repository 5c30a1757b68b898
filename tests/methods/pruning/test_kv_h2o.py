"""H2O's sums against dense attention, its halves, and its memory while decoding."""

from dataclasses import replace

import pytest
import torch

from methods.pruning.kv_h2o import KvH2o


def dense_sums(view, row, first):
    """Attention that each slot gets from all queries, mean over each group's heads, by loops."""
    sums = torch.zeros(2, view.num_slots)
    for head in range(4):
        for query in range(first, view.num_slots):
            keys = view.keys_BHND[row, head // 2, first : query + 1]
            weights = (keys @ view.queries_BHTD[row, head, query] * view.scaling).softmax(-1)
            sums[head // 2, first : query + 1] += weights / 2
    return sums


@pytest.mark.parametrize("padding", [(0, 0), (4, 17)])
def test_the_sums_are_those_of_dense_attention(make_view, padding):
    view = make_view(padding=padding)
    KvH2o(recent=0.0).scores(view)
    for row in range(2):
        torch.testing.assert_close(view.memory["attention"][row], dense_sums(view, row, padding[row]))


def test_steps_add_up_to_one_look_at_everything(make_view):
    """When nothing is dropped, the prompt's sums and each step's make the dense sums of the whole text."""
    whole = make_view()
    method, memory = KvH2o(recent=0.0), {}
    for start, stop in ((0, 30), (30, 31), (31, 40)):
        part = replace(
            whole,
            queries_BHTD=whole.queries_BHTD[:, :, start:stop],
            keys_BHND=whole.keys_BHND[:, :, :stop],
            position_BHN=whole.position_BHN[:, :, :stop],
            memory=memory,
        )
        method.scores(part)
    torch.testing.assert_close(memory["attention"][0], dense_sums(whole, 0, 0))


def test_half_of_the_budget_is_recent_and_half_is_heavy(make_view, kept_slots):
    view = make_view()
    sums = dense_sums(view, 0, 0)
    for head, kept in enumerate(kept_slots(KvH2o(keep_ratio=0.5), view)[0]):
        heavy = sorted(range(30), key=lambda j: -sums[head, j].item())[:10]
        assert kept == sorted([*heavy, *range(30, 40)])


def test_normalised_sums_do_not_gain_from_being_early(make_view, kept_slots):
    view = make_view()
    sums = dense_sums(view, 0, 0) / torch.arange(40, 0, -1)
    kept = kept_slots(KvH2o(keep_ratio=0.5, recent=0.0, normalise=True), view)[0]
    for head in range(2):
        best = sorted(range(40), key=lambda j: -sums[head, j].item())[:20]
        assert kept[head] == sorted(best)
    assert kept != kept_slots(KvH2o(keep_ratio=0.5, recent=0.0), view)[0]


def test_a_full_budget_never_evicts(make_view):
    assert KvH2o(keep_ratio=1.0).evict(make_view()) is None
    assert KvH2o(tokens=40).evict(make_view()) is None
