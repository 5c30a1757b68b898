"""The slots with the shortest keys stay, whatever the rest of the view says."""

from dataclasses import replace

import pytest

from methods.pruning.kv_knorm import KvKnorm


@pytest.mark.parametrize("padding", [(0, 0), (5, 20)])
def test_the_shortest_keys_stay(make_view, kept_slots, padding):
    view = make_view(padding=padding)
    kept = kept_slots(KvKnorm(keep_ratio=0.25), view)
    for row in range(2):
        real = range(padding[row], 40)
        for head in range(2):
            by_length = sorted(real, key=lambda j: float((view.keys_BHND[row, head, j] ** 2).sum()))
            assert kept[row][head] == sorted(by_length[: int(0.25 * len(real))])


def test_queries_and_values_are_not_read(make_view, kept_slots):
    view = make_view()
    other = replace(view, queries_BHTD=-view.queries_BHTD, values_BHND=view.values_BHND * 3)
    assert kept_slots(KvKnorm(), other) == kept_slots(KvKnorm(), view)


def test_a_budget_in_tokens_does_not_follow_the_length(make_view, kept_slots):
    for slots in (12, 40):
        kept = kept_slots(KvKnorm(tokens=10), make_view(slots=slots))
        assert {len(head) for row in kept for head in row} == {10}
    assert kept_slots(KvKnorm(tokens=10), make_view(slots=10)) is None
