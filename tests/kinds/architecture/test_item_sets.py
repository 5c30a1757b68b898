"""Sets of vectors: the mask against a slow construction, order and queries, losses by hand, one forward a list."""

from itertools import permutations

import pytest
import torch
from torch.nn import functional as F

from harness.kinds.architecture.blocks import Blocks
from harness.kinds.architecture.item_sets import SetRecommender, best_beta, set_mask, set_places, weighted

ITEMS, WIDTH, N = 20, 16, 2
HISTORY = torch.tensor([[3, 7, 1, 9], [5, 2, 0, 0]])


def model_of(n=N, collaborative=True):
    """A random model whose weights matter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        frozen = torch.randn(ITEMS, 12) if collaborative else None
        model = SetRecommender(torch.randn(ITEMS, 6), n, Blocks(WIDTH, 2, 2), frozen)
        for parameter in model.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return model_of()


@pytest.mark.parametrize("size", [1, 3])
def test_the_mask_is_what_the_rule_says(size):
    real = HISTORY > 0
    mask, length = set_mask(real, size), HISTORY.shape[1]
    assert mask.shape == (2, 1, (length + 1) * size, (length + 1) * size)
    for row in range(2):
        for i in range(mask.shape[2]):
            for j in range(mask.shape[2]):
                query, key = i // size, j // size
                # The item after the last is the queries.
                expected = i == j or (key < query and key < length and bool(real[row, key]))
                assert bool(mask[row, 0, i, j]) == expected, (row, i, j)


def test_a_set_shares_its_position_and_the_queries_have_the_next():
    assert set_places(HISTORY > 0, 2).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4], [0, 0, 1, 1, 2, 2, 3, 3, 2, 2]]


@torch.no_grad()
def test_the_order_of_an_items_vectors_says_nothing(model):
    vectors = model.item_vectors()[HISTORY]
    answers = model.answers(vectors, HISTORY > 0)
    for order in permutations(range(N + 1)):
        shuffled = vectors.clone()
        shuffled[:, 1] = vectors[:, 1, list(order)]
        assert torch.allclose(model.answers(shuffled, HISTORY > 0), answers, atol=1e-5)
    swapped = vectors.clone()
    swapped[:, [0, 1]] = vectors[:, [1, 0]]
    assert (model.answers(swapped, HISTORY > 0) - answers).abs().max() > 1e-3


@torch.no_grad()
def test_queries_do_not_see_each_other(model):
    vectors, changed = model.item_vectors()[HISTORY], model_of()
    before = model.answers(vectors, HISTORY > 0)
    changed.queries[1] += 1
    after = changed.answers(vectors, HISTORY > 0)
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]]) and (after[:, 1] - before[:, 1]).abs().min() > 1e-6


@torch.no_grad()
def test_padding_changes_nothing(model):
    longer = F.pad(HISTORY, (0, 3))
    assert torch.allclose(model.query_scores(longer), model.query_scores(HISTORY), atol=1e-5)
    assert torch.allclose(model.query_scores(HISTORY[1:, :2])[0], model.query_scores(HISTORY)[1], atol=1e-5)


@torch.no_grad()
def test_without_semantic_vectors_it_is_a_plain_causal_model():
    model = model_of(n=0, collaborative=False)
    row = HISTORY[:1]
    x = torch.cat([model.table.weight[row], model.queries[None]], 1)
    expected = model.blocks(x)[:, -1] @ model.table.weight.T
    assert torch.allclose(model.scores(row), expected, atol=1e-5)


@torch.no_grad()
def test_scores_are_inner_products_of_answers_and_weighted(model):
    vectors = model.item_vectors()
    answers = model.answers(vectors[HISTORY], HISTORY > 0)
    for q in range(N + 1):
        assert torch.allclose(model.query_scores(HISTORY)[:, q], answers[:, q] @ vectors[:, q].T, atol=1e-5)
    three = torch.tensor([[[1.0, 2.0], [3.0, 5.0], [4.0, 6.0]]])
    assert weighted(three, 0.25)[0].tolist() == pytest.approx([0.75 + 1.75, 1.5 + 2.75])
    assert torch.equal(weighted(three[:, :1], 0.25), three[:, 0])


@torch.no_grad()
def test_the_loss_by_hand(model):
    warm, target = torch.ones(ITEMS, dtype=torch.bool), torch.tensor([4, 6])
    warm[[0, 11, 13]] = False
    logp = model.query_scores(HISTORY)[..., warm].log_softmax(-1)
    place = {item: i for i, item in enumerate(warm.nonzero()[:, 0].tolist())}
    told = -sum(logp[row, q, place[int(target[row])]] for row in range(2) for q in range(N + 1)) / (2 * (N + 1))
    again = model.decoder(model.encoder(model.features_IF[1:]))
    expected = told + 0.5 * ((again - model.features_IF[1:]) ** 2).mean()
    assert float(model.loss(HISTORY, target, warm, 0.5)) == pytest.approx(float(expected), rel=1e-4)


def test_frozen_vectors_are_not_learnt_and_all_else_is():
    model, warm = model_of(), torch.ones(ITEMS, dtype=torch.bool)
    model.loss(HISTORY, torch.tensor([4, 6]), warm, 0.5).backward()
    assert "frozen" not in dict(model.named_parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_beta_is_the_best_of_the_grid():
    # The first query puts item 2 first, the other item 1; the target is 1.
    scores = torch.zeros(1, 2, 30)
    scores[0, 0, 2:], scores[0, 1, 1] = 1.0, 2.0
    assert best_beta(scores, torch.tensor([1]), (0.1, 0.3, 0.5, 0.9)) == 0.5
