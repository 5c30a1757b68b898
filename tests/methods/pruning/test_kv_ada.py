"""Ada-KV's shared budget against a plain sort, and SnapKV as the even case."""

import pytest
import torch

from methods.pruning.kv_ada import KvAda, head_slots
from methods.pruning.kv_snapkv import KvSnapKV


def naive(score_HN, keep, floor):
    """Each head's best ``floor``, then the best of the rest until the layer is full."""
    heads, slots = score_HN.shape
    stays = [set(sorted(range(slots), key=lambda j: -score_HN[h, j].item())[:floor]) for h in range(heads)]
    rest = [(-score_HN[h, j].item(), h, j) for h in range(heads) for j in range(slots) if j not in stays[h]]
    for _, h, j in sorted(rest)[: heads * keep - sum(map(len, stays))]:
        stays[h].add(j)
    return [sorted(one) for one in stays]


@pytest.mark.parametrize(("keep", "floor"), [(1, 0), (5, 1), (5, 5), (11, 4), (12, 2)])
def test_the_shared_budget_is_that_of_a_plain_sort(keep, floor):
    scores = torch.rand(3, 12, generator=torch.Generator().manual_seed(keep)) * torch.tensor([[1.0], [3.0], [0.2]])
    stays = head_slots(scores, keep, floor)
    assert [row.nonzero()[:, 0].tolist() for row in stays] == naive(scores, keep, floor)


@pytest.mark.parametrize("padding", [(0, 0), (0, 13)])
def test_with_alpha_1_it_is_snapkv(make_view, kept_slots, padding):
    view, settings = make_view(padding=padding), {"keep_ratio": 0.4, "window": 4}
    assert kept_slots(KvAda(alpha=1.0, **settings), view) == kept_slots(KvSnapKV(**settings), view)


@pytest.mark.parametrize("padding", [(0, 0), (0, 13)])
def test_the_window_stays_and_the_layer_holds_its_budget(make_view, kept_slots, padding):
    kept = kept_slots(KvAda(keep_ratio=0.4, window=4), make_view(padding=padding))
    for row, first in zip(kept, padding, strict=True):
        assert sum(map(len, row)) == 2 * int(0.4 * (40 - first))
        assert all(head[-4:] == [36, 37, 38, 39] and head[0] >= first for head in row)
    assert len({len(head) for head in kept[0]}) > 1
