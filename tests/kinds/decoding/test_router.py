"""The router's parts: the threshold picker on written scores, training that learns, and labels that teach nothing."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import Refused
from harness.kinds.decoding.divergence import Features, Labelled
from harness.kinds.decoding.router import GRID, Router, RouterTraining, fit_router, opened_router, pick_threshold

HOW = RouterTraining(learning_rate=3e-3, epochs=40, recall=0.95, seed=0)


def picked(scores, labels, recall=0.95):
    return pick_threshold(torch.tensor(scores), torch.tensor(labels), recall)


def test_the_threshold_has_the_fewest_false_alarms_at_its_recall():
    """Twenty critical tokens with another just above each: one may be lost at 0.95, none at 1."""
    critical = [(i + 0.5) / 20 for i in range(20)]
    scores, labels = [*critical, *(score + 0.005 for score in critical)], [1] * 20 + [0] * 20
    assert 0.03 < picked(scores, labels) <= 0.075
    assert picked(scores, labels, recall=1.0) == pytest.approx(0.01)
    assert 0.63 < picked(scores, labels, recall=0.35) <= 0.675


def test_without_a_threshold_that_serves_it_is_a_half():
    assert picked([0.001, 0.5], [1, 0]) == 0.5
    assert picked([0.2, 0.7], [0, 0]) == 0.5


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=12), st.sampled_from([0.5, 0.9, 1.0]))
def test_no_other_threshold_of_the_grid_is_better(rows, recall):
    scores, labels = [s for s, _ in rows], [int(label) for _, label in rows]
    chosen = picked(scores, labels, recall)

    def rates(threshold):
        routed = [torch.tensor(s).double() >= threshold for s in scores]
        found = sum(bool(r) and label for r, label in zip(routed, labels, strict=True))
        return found / max(1, sum(labels)), sum(bool(r) and not y for r, y in zip(routed, labels, strict=True))

    passing = [rates(t)[1] for t in GRID.tolist() if sum(labels) and rates(t)[0] >= recall - 1e-12]
    assert rates(chosen)[1] == min(passing) if passing else chosen == 0.5


def places(count, seed, width=6):
    """Places whose token is critical where the first number of the state is positive."""
    generator = torch.Generator().manual_seed(seed)
    hidden, embed, top = (torch.randn(count, n, generator=generator) for n in (width, width, 4))
    critical = (hidden[:, 0] > 0.8).long()
    return Labelled(Features(hidden, embed, top.sort(descending=True).values), critical, critical.bool())


def test_a_router_learns_what_can_be_learnt_and_is_opened_as_it_was():
    fitted = fit_router(16, 1, places(600, 0), places(200, 1), HOW)
    found = fitted["figures"]
    assert found["router_recall"] >= 0.95 and found["router_false_alarm_share"] < 0.2
    again = fit_router(16, 1, places(600, 0), places(200, 1), HOW)
    assert all(torch.equal(again["weights"][name], value) for name, value in fitted["weights"].items())
    router, held_out = opened_router(fitted, torch.device("cpu")), places(200, 1)
    score = router(held_out.features).sigmoid()
    routed = score >= fitted["threshold"]
    assert float(routed[held_out.critical_N.bool()].float().mean()) == pytest.approx(found["router_recall"])
    assert not router.training


def test_training_leaves_the_global_random_stream_alone():
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    fit_router(4, 0, places(50, 0), places(20, 1), replace(HOW, epochs=1))
    assert torch.equal(torch.rand(1), before)


@pytest.mark.parametrize("label", [0, 1])
def test_labels_that_are_all_alike_are_refused(label):
    train = places(40, 0)
    same = replace(train, critical_N=torch.full_like(train.critical_N, label))
    with pytest.raises(Refused, match=f"{40 * label} of 40 tokens are critical"):
        fit_router(4, 1, same, places(10, 1), HOW)


def test_blocks_are_residual():
    """With the last layer of each block at 0 the blocks change nothing."""
    router = Router(6, 4, 8, 2).eval()
    seen = places(5, 0).features
    plain = router.leave(router.enter(torch.cat([seen.hidden_ND, seen.embed_ND, router.top(seen.top_NK)], -1)))[:, 0]
    assert not torch.allclose(router(seen), plain)
    with torch.no_grad():
        for block in router.blocks:
            block.inner[4].weight.zero_()
            block.inner[4].bias.zero_()
    assert torch.allclose(router(seen), plain)
