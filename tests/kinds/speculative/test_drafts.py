"""Draft models: a tree grown level by level equals forwards path by path, and only what was accepted stays."""

import pytest
import torch

from harness.kinds.invariants import forced_logits
from harness.kinds.speculative.base import DraftTree, Step
from harness.kinds.speculative.drafts import DraftModel

TEXT = [(7 * i) % 250 for i in range(9)]
TREE = DraftTree((TEXT[-1], 5, 6, 7, 8, 9), (-1, 0, 0, 1, 2, 3))


def after(subject, path):
    """Logits after the text and a path of tokens, from a fresh forward."""
    with torch.inference_mode():
        return forced_logits(subject, [[*TEXT, *path]], [[]])[0, -1]


def grown(model):
    """The logits of the whole tree, grown in three levels."""
    with torch.inference_mode():
        root = model.root(TEXT)
        levels = [model.grow(TREE.tokens[a:b], TREE.parents[a:b]) for a, b in ((1, 3), (3, 5), (5, 6))]
    return [root, *torch.cat(levels)]


def test_every_node_sees_its_own_path_alone(tiny):
    logits = grown(DraftModel(tiny, tiny))
    for node in range(6):
        path = [TREE.tokens[n] for n in TREE.path_to(node)[1:]]
        assert torch.allclose(logits[node], after(tiny, path), atol=1e-4)


@pytest.mark.parametrize("path", [(0,), (0, 1), (0, 2, 4), (0, 1, 3, 5)])
def test_what_was_accepted_stays_and_the_text_goes_on_from_there(tiny, path):
    model = DraftModel(tiny, tiny)
    grown(model)
    kept = [TREE.tokens[n] for n in path[1:]]
    with torch.inference_mode():
        model.keep(Step(TREE, torch.empty(0), path))
        forwarded = model.runner.counts.tokens
        logits = model.root([*TEXT, *kept, 77])
    assert torch.allclose(logits, after(tiny, [*kept, 77]), atol=1e-4)
    # Only the token that the target added was forwarded.
    assert model.runner.counts.tokens == forwarded + 1


def test_prices_count_the_draft_s_forwards_in_plain_steps(tiny):
    model = DraftModel(tiny, tiny)
    grown(model)
    costs = model.costs
    assert model.price == pytest.approx(2 * costs(2) + costs(1))
    assert model.token_price == pytest.approx(1.0)


def test_a_proposal_that_forwards_nothing_costs_nothing(tiny):
    model = DraftModel(tiny, tiny)
    grown(model)
    assert model.price > 0
    with torch.inference_mode():
        model.keep(Step(TREE, torch.empty(0), (0,)))
    assert model.price == 0
