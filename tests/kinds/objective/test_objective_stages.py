"""Advantages, surrogates and aggregations against loops in plain Python."""

import statistics
from collections import defaultdict

import pytest
import torch

from harness.errors import Refused
from harness.kinds.objective.stages import (
    aggregate,
    clip_fractions,
    clipped_surrogate,
    effective_tokens,
    group_normalize,
    masked,
    ratios,
    response_advantage,
    zero_groups,
)

REWARDS = torch.tensor([1.0, 0.0, 0.3, 1.0, 0.0, 0.7, 0.7, 5.0], dtype=torch.float64)
GROUPS = torch.tensor([4, 9, 4, 9, 4, 2, 2, 7])
MASK = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)


def losses():
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_group(rewards, groups):
    found = defaultdict(list)
    for reward, group in zip(rewards.tolist(), groups.tolist(), strict=True):
        found[group].append(reward)
    return found


@pytest.mark.parametrize("scale", ["group", "none"])
def test_advantages_against_a_loop(scale):
    members = by_group(REWARDS, GROUPS)
    expected = []
    for reward, group in zip(REWARDS.tolist(), GROUPS.tolist(), strict=True):
        rewards = members[group]
        if len(set(rewards)) == 1:
            expected.append(0.0)
            continue
        std = statistics.stdev(rewards) if scale == "group" else 1.0
        expected.append((reward - statistics.fmean(rewards)) / (std + (1e-4 if scale == "group" else 0.0)))
    found = group_normalize(REWARDS, GROUPS, scale, 1e-4)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


def test_equal_rewards_and_single_responses_give_exactly_zero():
    rewards = torch.tensor([0.1, 0.1, 0.1, 7.0], dtype=torch.float32)
    assert group_normalize(rewards, torch.tensor([0, 0, 0, 1])).tolist() == [0.0] * 4
    assert zero_groups(REWARDS, GROUPS).tolist() == [True, False, True, False]


def test_scaling_rewards_changes_advantages_only_through_eps():
    one = group_normalize(REWARDS, GROUPS, eps=1e-12)
    torch.testing.assert_close(group_normalize(REWARDS * 13, GROUPS, eps=1e-12), one, atol=1e-9, rtol=0)
    assert not torch.allclose(group_normalize(REWARDS * 13, GROUPS, eps=0.5), group_normalize(REWARDS, GROUPS, eps=0.5))


def test_leave_one_out_is_centring_times_g_over_g_minus_1():
    rewards, groups = REWARDS[:5], GROUPS[:5]
    sizes = torch.tensor([3, 2, 3, 2, 3])
    left_out = []
    for i, (reward, group) in enumerate(zip(rewards, groups, strict=True)):
        others = [r for j, r in enumerate(rewards) if groups[j] == group and j != i]
        left_out.append(reward - sum(others) / len(others))
    torch.testing.assert_close(
        group_normalize(rewards, groups, "none") * sizes / (sizes - 1), torch.stack(left_out), atol=1e-12, rtol=0
    )


def test_surrogate_gradient_vanishes_exactly_where_the_clip_binds():
    ratio, adv = torch.meshgrid(
        torch.linspace(0.5, 1.6, 23).double(), torch.tensor([-2.0, 2.0]).double(), indexing="ij"
    )
    logp = ratio.log().requires_grad_()
    loss = clipped_surrogate(ratios(logp, torch.zeros_like(logp)), adv, 0.2, 0.3)
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    bound = ((adv > 0) & (ratio > 1.3)) | ((adv < 0) & (ratio < 0.8))
    assert torch.equal(gradient == 0, bound)
    torch.testing.assert_close(gradient[~bound], (-adv * ratio)[~bound])


def test_ratio_is_one_at_the_snapshot_and_stays_finite():
    far = ratios(torch.tensor([0.0, -100.0, 3.0]), torch.tensor([-100.0, 0.0, 3.0]))
    assert torch.isfinite(far).all() and far[1] > 0 and far[2] == 1


def test_clip_fractions_count_real_tokens():
    ratio = torch.tensor([[1.5, 0.5, 9.0], [1.5, 0.5, 1.0]])
    adv = torch.tensor([[1.0], [-1.0]]).expand(2, 3)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert clip_fractions(ratio, adv, mask, 0.2, 0.2) == pytest.approx((0.2, 0.2))


def test_aggregations_against_loops():
    loss, groups = losses(), torch.tensor([0, 1, 0, 1])
    rows = [[v for v, m in zip(r, k, strict=True) if m] for r, k in zip(loss.tolist(), MASK.tolist(), strict=True)]
    tokens = [v for row in rows for v in row]
    pooled = [rows[0] + rows[2], rows[1] + rows[3]]
    expected = {
        "seq": sum(sum(r) / max(len(r), 1) for r in rows) / 4,
        "token": sum(tokens) / len(tokens),
        "const": sum(tokens) / (4 * 10),
        "seq_sum": sum(tokens) / 4,
        "group_token": sum(sum(p) / len(p) for p in pooled) / 2,
    }
    for mode, value in expected.items():
        assert float(aggregate(loss, MASK, mode, groups, 10)) == pytest.approx(value, abs=1e-12), mode


def test_equal_lengths_make_seq_token_and_group_token_equal():
    loss, mask = losses(), torch.ones(4, 4, dtype=torch.bool)
    token = aggregate(loss, mask, "token")
    for mode in ("seq", "group_token"):
        torch.testing.assert_close(aggregate(loss, mask, mode, torch.tensor([0, 1, 0, 1])), token)


@pytest.mark.parametrize("mode", ["const", "group_token"])
def test_aggregations_name_what_they_lack(mode):
    with pytest.raises(ValueError, match="needs"):
        aggregate(losses(), MASK, mode)


def test_masked_drops_what_is_not_a_number():
    values = torch.tensor([[1.0, float("nan")]], requires_grad=True)
    total = masked(values, torch.tensor([[True, False]])).sum()
    (gradient,) = torch.autograd.grad(total, values)
    assert float(total.detach()) == 1 and gradient.tolist() == [[1.0, 0.0]]


def test_response_advantage_takes_an_empty_response_from_its_row():
    adv = torch.tensor([[2.0] * 4, [-1.0] * 4, [0.5, 1.5, -9.0, -9.0], [-3.0] * 4])
    assert response_advantage(adv, MASK).tolist() == [2.0, -1.0, 1.0, -3.0]


def test_both_signs_in_one_response_are_refused():
    with pytest.raises(Refused, match="both signs"):
        response_advantage(torch.tensor([[1.0, -1.0]]), torch.ones(1, 2, dtype=torch.bool))


def test_effective_tokens():
    assert float(effective_tokens(torch.tensor([[1.0, -1.0, 1.0, 0.0]]))) == pytest.approx(3)
    assert float(effective_tokens(torch.tensor([[2.0, 1.0]]))) == pytest.approx(9 / 5)
    assert float(effective_tokens(torch.zeros(2, 2))) == 0
