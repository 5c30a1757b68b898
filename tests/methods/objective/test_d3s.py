"""D3S: the spread against all subsets, tokens by their key, the schedule's ends, controls, and the kind's checks."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.objective.checks import loss_and_gradient, moved_logps, random_batch
from harness.kinds.objective.frozen import frozen_stages
from methods.objective.d3s import widest_spread

ALL = "@rows_start=1@rows_end=1@tokens_start=1@tokens_end=1"


def made(text="d3s"):
    return MethodSpec.parse(text).build()


def spread(values, keep):
    return widest_spread(values, keep, torch.arange(len(values)))


@pytest.mark.parametrize("seed", range(6))
def test_the_scan_finds_the_best_of_all_subsets(seed):
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(9, generator=rng).double()
    values = values.round() if seed % 2 else values
    for keep in range(1, 10):
        best = max(float(values[list(s)].var(correction=0)) for s in itertools.combinations(range(9), keep))
        chosen = spread(values, keep)
        assert len(set(chosen.tolist())) == keep
        assert float(values[chosen].var(correction=0)) == pytest.approx(best, abs=1e-12)


def test_the_unbiased_variance_falls_with_more_rows_and_the_biased_may_rise():
    values = torch.randn(12, generator=torch.Generator().manual_seed(0)).double()
    found = [float(values[spread(values, keep)].var()) for keep in range(2, 13)]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(found))
    four = torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert float(four[spread(four, 3)].var(correction=0)) == pytest.approx(8 / 9)


def test_more_rows_than_there_are_are_all_rows():
    assert spread(torch.randn(3), 5).tolist() == [0, 1, 2]


def test_rows_without_advantage_are_the_last_to_be_chosen():
    batch = random_batch(sizes=(4, 6, 5))
    adv = made().advantage(batch)
    live = int((adv[:, 0] != 0).sum())
    for share in (0.2, 0.5, 0.9):
        rows = made(f"d3s@rows_start={share}").select(batch, adv, 0.0)
        assert int((adv[rows, 0] == 0).sum()) == max(0, len(rows) - live)


def test_within_a_group_the_spread_of_advantages_is_that_of_rewards():
    rewards = torch.rand(8).double()
    assert torch.equal(spread(rewards, 5), spread((rewards - rewards.mean()) / 0.3, 5))


def test_in_scope_query_every_group_keeps_its_share():
    batch = random_batch(sizes=(4, 6, 8))
    rows = made("d3s@scope=query").select(batch, made().advantage(batch), 0.0)
    assert torch.bincount(batch.group_ids_B[rows]).tolist() == [2, 3, 4]


def test_tokens_kept_are_those_of_the_largest_key_and_exactly_so_many():
    batch = random_batch()
    adv = made().advantage(batch)
    kept = made("d3s@tokens_start=0.3").token_mask(batch, adv, 0.0)
    mask = batch.response_mask_BT
    assert int(kept.sum()) == math.ceil(0.3 * int(mask.sum())) and not (kept & ~mask).any()
    key = adv.abs() * batch.entropy_BT
    assert key[kept].min() >= key[mask & ~kept].max()
    assert torch.equal(kept, made("d3s@tokens_start=0.3").token_mask(batch, -adv, 0.0))


def test_the_shares_start_and_end_where_they_say():
    batch = random_batch(sizes=(4, 4))
    method, adv = made("d3s@rows_end=0.75@tokens_end=0.5"), made().advantage(batch)
    assert [len(method.select(batch, adv, p)) for p in (0.0, 0.5, 1.0)] == [4, 5, 6]
    tokens = int(batch.response_mask_BT.sum())
    assert [int(method.token_mask(batch, adv, p).sum()) for p in (0.0, 1.0)] == [
        math.ceil(0.2 * tokens),
        math.ceil(0.5 * tokens),
    ]


def test_with_all_shares_at_one_it_is_grpo_over_tokens():
    batch = random_batch()
    ours = loss_and_gradient(made("d3s" + ALL), batch, moved_logps(batch))
    theirs = loss_and_gradient(made("grpo@aggregation=token"), batch, moved_logps(batch))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_the_denominator_rescales_only():
    batch = random_batch()
    selected, every = (
        loss_and_gradient(made(f"d3s@denominator={d}"), batch, moved_logps(batch)) for d in ("selected", "all")
    )
    kept, rows = (frozen_stages(made(t), batch, 0.5).batch.response_mask_BT for t in ("d3s", "d3s@denominator=all"))
    factor = int(kept.sum()) / int(rows.sum())
    torch.testing.assert_close(every[1], selected[1] * factor, atol=1e-12, rtol=0)


def test_controls_choose_as_many_by_chance():
    batch = random_batch(sizes=(8, 8))
    adv = made().advantage(batch)
    rule, control = made(), made("d3s@rows=random@tokens=random")
    ours, theirs = rule.select(batch, adv, 0.0), control.select(batch, adv, 0.0)
    assert len(ours) == len(theirs) and not torch.equal(ours, theirs)
    assert torch.equal(theirs, control.select(replace(batch, rewards_B=1 - batch.rewards_B), -2 * adv, 0.0))
    kept, other = rule.token_mask(batch, adv, 0.0), control.token_mask(batch, adv, 0.0)
    assert kept.sum() == other.sum() and not torch.equal(kept, other)


@pytest.mark.parametrize("spec", ["d3s", "d3s@scope=query@denominator=all@rows=random@tokens=random"])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
