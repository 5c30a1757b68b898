"""Codes of items, and the beam against every item told in full."""

import pytest
import torch

from harness.errors import Refused
from harness.kinds.architecture.blocks import Blocks
from harness.kinds.architecture.item_codes import CodeRecommender, centres, nearest, residual_codes

ITEMS, SIZE = 30, 4
HISTORY = torch.tensor([[3, 7, 1, 9], [5, 2, 0, 0]])


@pytest.fixture(scope="module")
def features():
    return torch.randn(ITEMS + 1, 5, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def model(features):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = CodeRecommender(residual_codes(features, SIZE), SIZE, Blocks(16, 2, 2))
        torch.nn.init.normal_(made.embed.weight, std=0.5)
    return made.eval()


def test_no_two_items_have_the_same_codes(features):
    codes = residual_codes(features, SIZE)
    assert codes.shape == (ITEMS + 1, 4) and len(codes[1:].unique(dim=0)) == ITEMS
    assert int(codes.min()) == 0 and int(codes.max()) < SIZE and codes[0].tolist() == [0] * 4
    assert torch.equal(codes, residual_codes(features, SIZE))


def test_centres_are_the_means_of_their_rows(features):
    found = centres(features, 3, torch.Generator().manual_seed(0))
    code = nearest(features, found)
    for k in range(3):
        assert torch.allclose(found[k], features[code == k].mean(0), atol=1e-5)


def test_too_many_equals_are_refused():
    with pytest.raises(Refused, match=r"^6 items share their first codes, and there are 2 codes a level; use more$"):
        residual_codes(torch.ones(7, 2), 2)


def told(model, history, item):
    """Log-probability of an item's codes after one history, all in one row."""
    row = [item_ for item_ in history.tolist() if item_]
    codes = torch.cat([model.codes_I4[row].flatten(), model.codes_I4[item]])
    level = torch.arange(len(codes)) % 4
    states = model.blocks(model.embed(codes + SIZE * level)[None])[0]
    total = torch.zeros(())
    for at in range(4):
        logits = states[4 * len(row) - 1 + at] @ model.embed.weight[at * SIZE : (at + 1) * SIZE].T
        total = total + logits.log_softmax(-1)[model.codes_I4[item, at]]
    return total


@torch.no_grad()
def test_a_wide_beam_is_every_item_told_in_full(model):
    scores = model.scores(HISTORY, beam=ITEMS)
    for row in range(2):
        for item in range(1, ITEMS + 1):
            assert float(scores[row, item]) == pytest.approx(float(told(model, HISTORY[row], item)), abs=1e-4)
    assert scores[:, 0].isinf().all()


@torch.no_grad()
def test_a_narrow_beam_ends_with_as_many_items_with_their_own_scores(model):
    wide, narrow = model.scores(HISTORY, beam=ITEMS), model.scores(HISTORY, beam=3)
    kept = ~narrow.isinf()
    assert kept.sum(1).tolist() == [3, 3] and torch.allclose(narrow[kept], wide[kept], atol=1e-5)


@torch.no_grad()
def test_the_loss_is_a_quarter_of_the_targets_log_probability(model):
    target = torch.tensor([4, 6])
    expected = -sum(told(model, HISTORY[row], int(target[row])) for row in range(2)) / 8
    assert float(model.loss(HISTORY, target)) == pytest.approx(float(expected), abs=1e-5)
