"""Synthetic interactions, and what a place in a ranking is worth."""

import math

import pytest
import torch

from harness.kinds.architecture.interactions import CLUSTERS, RING, ndcg, ranks, recall, synthetic


@pytest.fixture(scope="module")
def data():
    return synthetic()


def test_the_same_seed_gives_the_same_interactions(data):
    again, other = synthetic(), synthetic(1)
    assert torch.equal(data.users_UL, again.users_UL) and torch.equal(data.features_IF, again.features_IF)
    assert not torch.equal(data.users_UL, other.users_UL)


def test_cold_items_are_nowhere_but_at_the_end(data):
    warm = data.warm_I[data.users_UL]
    assert bool(warm[:, :-1].all()) and 0.1 < 1 - float(warm[:, -1].double().mean()) < 0.4
    assert not data.warm_I[0] and int((~data.warm_I[1:]).sum()) == CLUSTERS * RING // 10


def test_users_stay_in_two_clusters_and_go_a_few_places_on(data):
    cluster, place = (data.users_UL - 1) // RING, (data.users_UL - 1) % RING
    assert max(len(row.unique()) for row in cluster) == 2
    same = cluster[:, 1:] == cluster[:, :-1]
    step = (place[:, 1:] - place[:, :-1]) % RING
    assert 0.7 < float(same.double().mean()) < 0.9 and set(step[same].unique().tolist()) == {1, 2}


def test_features_tell_the_cluster_and_the_neighbours(data):
    distance = torch.cdist(data.features_IF[1:], data.features_IF[1:]).fill_diagonal_(math.inf)
    nearest = distance.argmin(1)
    items = torch.arange(CLUSTERS * RING)
    assert (items // RING == nearest // RING).all()
    around = (items - nearest) % RING
    assert float(((around <= 2) | (around >= RING - 2)).double().mean()) > 0.95


def test_training_rows_end_before_the_held_out_items(data):
    (ids, mask), *_ = data.training_rows(64, 2, 0)
    assert ids.shape == (64, 8) and bool((mask.sum(1) >= 2).all()) and bool((ids[~mask] == 0).all())
    assert bool(data.warm_I[ids[mask]].all())
    history, target = data.held_out(1)
    assert history.shape[1] == 9 and torch.equal(target, data.users_UL[:, -1])
    assert torch.equal(data.held_out(2)[1], data.users_UL[:, -2])


def test_ranks_recall_and_ndcg_by_hand():
    scores = torch.tensor([[0.0, 3.0, 2.0, 1.0], [0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 2.0, -math.inf]])
    found = ranks(scores, torch.tensor([2, 1, 3]))
    # The second ties with two others, which come first; the third was never told.
    assert found.tolist() == [1, 2, 4]
    assert recall(found, 2) == pytest.approx(1 / 3)
    assert ndcg(found, 3) == pytest.approx((1 / math.log2(3) + 1 / math.log2(4)) / 3)
