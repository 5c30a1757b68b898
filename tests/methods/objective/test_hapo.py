"""HAPO: the signal, each of its four parts, its reduction to DAPO, and the kind's checks."""

from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.objective.checks import loss_and_gradient, moved_logps, random_batch
from harness.kinds.objective.stages import group_normalize
from methods.objective.hapo import EntropyScale, redistribute, token_normalize

OFF = "hapo@tau=0@token_average=false@beta=0@alpha=0"


def made(text="hapo"):
    return MethodSpec.parse(text).build()


def test_the_signal_rises_with_entropy_and_its_ends_are_one():
    entropy = torch.rand(10, 50, generator=torch.Generator().manual_seed(0)).double() * 2
    mask = torch.ones_like(entropy, dtype=torch.bool)
    scale = EntropyScale.of(entropy, mask, 0.8)
    h = scale.signal(entropy)
    order = entropy.flatten().argsort()
    assert (h.flatten()[order].diff() >= 0).all() and float(h.max()) == 1 and float(h.min()) == -1
    assert float((h > 0).double().mean()) == pytest.approx(0.2, abs=0.005)
    released = scale.signal(entropy, "released")
    assert (released >= 0).all() and torch.equal(released[h > 0], h[h > 0])
    assert torch.equal(scale.signal(entropy * 1e9).clamp(max=1), torch.ones_like(h))


def test_constant_entropies_give_no_signal():
    batch = random_batch()
    batch = replace(batch, entropy_BT=torch.full_like(batch.entropy_BT, 0.3))
    assert not made().signal(batch).any()
    ours = loss_and_gradient(made(), batch, moved_logps(batch))
    theirs = loss_and_gradient(made("hapo@tau=0@beta=0@alpha=0"), batch, moved_logps(batch))
    assert torch.equal(ours[1], theirs[1])


def test_with_all_parts_off_it_is_dapo():
    batch = random_batch()
    ours = loss_and_gradient(made(OFF), batch, moved_logps(batch))
    theirs = loss_and_gradient(made("dapo"), batch, moved_logps(batch))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    assert made(OFF).sampling(batch).temper is None


def test_b_tokens_of_a_group_sum_to_zero_with_unit_variance_whatever_the_lengths():
    batch = random_batch(sizes=(5, 6, 3), width=9)
    adv, mask = made().advantage(batch), batch.response_mask_BT
    plain = group_normalize(batch.rewards_B, batch.group_ids_B)[:, None] * mask
    for group in (0, 1):
        rows = batch.group_ids_B == group
        tokens = adv[rows][mask[rows]]
        assert float(tokens.sum()) == pytest.approx(0, abs=1e-9)
        assert float(tokens.var(correction=0)) == pytest.approx(1, abs=1e-5)
        assert abs(float(plain[rows].sum())) > 0.1
    assert not adv[batch.group_ids_B == 2].any()


def test_b_with_equal_lengths_is_grpo_with_the_biased_deviation():
    rewards, groups = torch.tensor([1.0, 0, 0, 1, 0]).double(), torch.zeros(5, dtype=torch.long)
    found = token_normalize(rewards, groups, torch.ones(5, 4, dtype=torch.bool))
    torch.testing.assert_close(found, (rewards - 0.4) / (rewards.std(correction=0) + 1e-6))


def test_b_falls_back_to_responses_where_it_is_wild():
    rewards, groups = torch.tensor([1.0, 0.0, 0.0]).double(), torch.zeros(3, dtype=torch.long)
    mask = torch.arange(60)[None] < torch.tensor([1, 60, 60])[:, None]
    assert torch.equal(token_normalize(rewards, groups, mask), group_normalize(rewards, groups))


def test_c_acts_on_uncertain_tokens_outside_and_on_certain_ones_inside():
    h, adv = torch.tensor([0.5, 0.5, -0.5, -0.5, 1.0]), torch.tensor([1.0, -2.0, 1.0, -2.0, 1.0])
    ratio = torch.tensor([1.0, 1.3, 1.05, 0.5, 1.14])
    assert redistribute(adv, h, ratio, 0.2, 0.28, 1.0).tolist() == [1.0, -3.0, 0.5, -2.0, 1.0]
    assert torch.equal(redistribute(adv, h, ratio, 0.2, 0.28, 0.0), adv)
    assert (redistribute(adv, h, ratio, 0.2, 0.28, 1.0) * adv >= 0).all()


def test_c_only_damps_at_the_snapshot():
    batch = random_batch()
    logp = batch.old_logps_BT.clone().requires_grad_()
    ours, theirs = (loss_and_gradient(made(f"hapo@beta={beta}"), batch, logp)[1].abs() for beta in (1, 0))
    assert (ours <= theirs + 1e-15).all() and (ours < theirs - 1e-6).any()


def test_d_widens_one_bound_a_token_at_most_twice():
    batch = random_batch()
    h, (low, high) = made().signal(batch), made().bounds(batch)
    assert (low >= 0.2).all() and (low <= 0.4 + 1e-12).all() and (high >= 0.28).all() and (high <= 0.56 + 1e-12).all()
    assert (low[h > 0] == 0.2).all() and (high[h <= 0] == 0.28).all()
    assert float(low.max()) == pytest.approx(0.4) and float(high.max()) == pytest.approx(0.56)


def test_a_tokens_are_drawn_from_the_tempered_law():
    batch = random_batch()
    sampling = made("hapo@tau=0.5@temperature=0.9").sampling(batch)
    logits = torch.tensor([[4.0, 0.0, -1.0, 0.0], [0.1, 0.0, 0.2, 0.0]]).double()
    scale = EntropyScale.of(batch.entropy_BT, batch.response_mask_BT, 0.8)
    law = (logits / 0.9).log_softmax(-1)
    h = scale.signal(-(law.exp() * law).sum(-1))
    heat = 0.9 * (1 + 0.5 * h)
    assert float(heat.min()) < 0.9 < float(heat.max())
    expected = (logits / heat[:, None]).softmax(-1)
    torch.testing.assert_close(sampling.law(logits).exp(), expected)
    drawn = torch.multinomial(
        sampling.law(logits).exp(), 40_000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    for row in range(2):
        count = torch.bincount(drawn[row], minlength=4).double()
        chi = ((count - 40_000 * expected[row]).square() / (40_000 * expected[row])).sum()
        assert float(chi) < 16.3  # 0.999 quantile with 3 degrees of freedom
    assert made().sampling(None).temper is None


def test_the_neutral_zone_of_the_released_code_is_wider():
    batch = random_batch()
    paper, code = (loss_and_gradient(made(f"hapo@zone={z}"), batch, moved_logps(batch))[1] for z in ("base", "adapted"))
    assert not torch.equal(paper, code)


def test_the_shuffled_control_moves_the_signal_within_responses():
    batch = random_batch()
    ours, theirs = made().signal(batch), made("hapo@shuffle=true").signal(batch)
    assert not torch.equal(ours, theirs)
    torch.testing.assert_close(ours.sort(1).values, theirs.sort(1).values)


@pytest.mark.parametrize("spec", ["hapo", "hapo@zone=adapted@sign=released@shuffle=true"])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
