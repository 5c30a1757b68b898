"""Choosing tokens, ranks, chance from the batch, and schedules."""

import itertools
import math

import pytest
import torch

from harness.kinds.objective.checks import random_batch, widened
from harness.kinds.objective.schedules import schedule
from harness.kinds.objective.tokens import (
    every_row,
    percentile_rank,
    row_chance,
    select_topk,
    shuffled,
    token_chance,
    whole_batch,
)


@pytest.mark.parametrize("keep", [0.01, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("scope", ["row", "group", "batch"])
def test_the_best_tokens_of_each_scope_by_sorting(keep, scope):
    batch = random_batch(4)
    mask, scores = batch.response_mask_BT, batch.entropy_BT
    scope_B = {"row": every_row(mask), "group": batch.group_ids_B, "batch": whole_batch(mask)}[scope]
    found = select_topk(scores, mask, keep, scope_B)
    for name in scope_B.unique():
        rows = (scope_B == name).nonzero()[:, 0]
        tokens = [(-float(scores[i, t]), int(i), t) for i in rows for t in range(int(mask[i].sum()))]
        best = {(i, t) for _, i, t in sorted(tokens)[: math.ceil(keep * len(tokens) - 1e-9)]}
        assert {(int(rows[i]), t) for i, t in found[rows].nonzero().tolist()} == best


def test_ties_go_to_the_earlier_token_and_nothing_is_kept_where_nothing_is():
    mask = torch.tensor([[True, True, True], [False, False, False]])
    found = select_topk(torch.zeros(2, 3), mask, 0.5, every_row(mask))
    assert found.tolist() == [[True, True, False], [False, False, False]]


def test_percentile_ranks_count_ties_half():
    values, mask = torch.tensor([[3.0, 1.0, 9.0], [1.0, 7.0, 0.0]]), torch.tensor([[True, True, False]] * 2)
    assert percentile_rank(values, mask)[0, :2].tolist() == pytest.approx([2 / 3, 1 / 6])
    assert percentile_rank(values, mask)[1, :2].tolist() == pytest.approx([1 / 6, 1.0])
    one = torch.tensor([[True, False, False], [False] * 3])
    assert percentile_rank(values, one)[0, 0] == 0.5


def test_chance_goes_with_its_token_and_does_not_see_padding():
    batch = random_batch()
    order = torch.randperm(batch.size)
    mask = batch.response_mask_BT
    assert torch.equal(token_chance(batch.rows(order))[mask[order]], token_chance(batch)[order][mask[order]])
    assert torch.equal(token_chance(widened(batch, 3, 5.0))[:, :-3][mask], token_chance(batch)[mask])
    assert torch.equal(row_chance(widened(batch, 3, 5.0)), row_chance(batch))


def test_chance_is_uniform_and_knows_nothing_of_the_log_probabilities():
    batches = [random_batch(seed, (40, 40)) for seed in range(20)]
    chance = torch.cat([token_chance(b)[b.response_mask_BT] for b in batches])
    logps = torch.cat([b.old_logps_BT[b.response_mask_BT] for b in batches])
    histogram = torch.histc(chance, 10, 0, 1) / len(chance)
    assert ((histogram - 0.1).abs() < 4 * math.sqrt(0.09 / len(chance))).all()
    assert abs(float(torch.corrcoef(torch.stack([chance, logps]))[0, 1])) < 4 / math.sqrt(len(chance))
    rows = torch.cat([row_chance(b) for b in batches])
    assert 0.45 < float(rows.mean()) < 0.55 and len(rows.unique()) == len(rows)


def test_shuffled_values_stay_in_their_response_and_move():
    batch = random_batch(2)
    mask, values = batch.response_mask_BT, batch.entropy_BT
    found = shuffled(values, batch)
    for i in range(batch.size):
        assert sorted(found[i][mask[i]].tolist()) == sorted(values[i][mask[i]].tolist())
    assert (found != values)[mask].float().mean() > 0.5 and torch.equal(found[~mask], values[~mask])


@pytest.mark.parametrize("curve", ["linear", "power", "sigmoid"])
def test_schedules_start_and_end_where_they_say_and_are_monotone(curve):
    values = [schedule(curve, 0.99, 0.0, p / 50, 0.1, 0.8) for p in range(51)]
    assert values[0] == values[5] == pytest.approx(0.99, abs=1e-12) and values[40:] == pytest.approx(
        [0] * 11, abs=1e-12
    )
    assert all(a >= b for a, b in itertools.pairwise(values))
    assert schedule("constant", 0.5, 0.0, 0.7) == 0.5
    assert schedule("linear", 0.2, 1.0, 0.25) == pytest.approx(0.4)
    assert schedule("power", 1.0, 0.0, 0.5, power=3.0) == pytest.approx(0.125)
    assert schedule("sigmoid", 1.0, 0.0, 0.5) == pytest.approx(0.5)
