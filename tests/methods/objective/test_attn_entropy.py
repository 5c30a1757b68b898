"""Attention entropy: its ends and a loop, the schedule of weights, the hard choices, and the kind's checks."""

import math
from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.objective.checks import loss_and_gradient, moved_logps, random_batch, widened
from methods.objective.attn_entropy import attention_entropy, scheduled_weights


def made(text="attn_entropy"):
    return MethodSpec.parse(text).build()


def entropy(batch):
    return attention_entropy(batch.attention_BNN, batch.prompt_mask_BP, batch.response_mask_BT)


def test_against_loops_with_a_padded_prompt():
    batch = random_batch()
    batch = replace(batch, prompt_mask_BP=batch.prompt_mask_BP.index_fill(1, torch.tensor([0]), False))
    maps = batch.attention_BNN.clone()
    maps[:, :, 0] = 0.0
    maps = maps / maps.sum(-1, keepdim=True).clamp(min=1e-9)
    found = entropy(replace(batch, attention_BNN=maps))
    for i, n in enumerate(batch.lengths_B.tolist()):
        for t in range(n):
            row = maps[i, 1 + t, 1 : 2 + t].tolist()
            expected = -sum(a * math.log(a) for a in row) / math.log(len(row)) if len(row) > 1 else 0.0
            assert float(found[i, t]) == pytest.approx(expected, abs=1e-12)


def test_uniform_attention_has_entropy_one_and_a_single_target_none():
    batch = random_batch()
    size = batch.attention_BNN.shape[-1]
    uniform = torch.ones(size, size).double().tril()
    uniform = (uniform / uniform.sum(-1, keepdim=True)).expand_as(batch.attention_BNN)
    mask = batch.response_mask_BT
    assert torch.allclose(entropy(replace(batch, attention_BNN=uniform))[mask], torch.ones(int(mask.sum())).double())
    single = torch.eye(size).double().expand_as(batch.attention_BNN)
    assert not entropy(replace(batch, attention_BNN=single)).any()


def test_splitting_every_key_in_two_adds_one_bit_before_normalisation():
    row = torch.rand(1, 1, 5).double()
    row = row / row.sum()
    once = torch.zeros(1, 5, 5).double()
    once[0, 4] = row
    twice = torch.zeros(1, 10, 10).double()
    twice[0, 9] = row.repeat_interleave(2, -1) / 2
    mask = torch.ones(1, 1, dtype=torch.bool)
    short, long = (
        attention_entropy(torch.nn.functional.pad(m, (0, 1, 0, 1)), torch.ones(1, m.shape[-1], dtype=torch.bool), mask)
        for m in (once, twice)
    )
    assert float(long) * math.log(10) == pytest.approx(float(short) * math.log(5) + math.log(2))


def test_padding_changes_nothing():
    batch = random_batch()
    torch.testing.assert_close(entropy(widened(batch, 3, 5.0))[:, :-3], entropy(batch))


def test_weights_have_mean_one_and_turn_over_at_half_time():
    batch = random_batch()
    mask, h = batch.response_mask_BT, entropy(batch)
    order = h[mask].argsort()
    for progress, sign in ((0.0, -1), (0.25, -1), (0.75, 1), (1.0, 1)):
        weight = scheduled_weights(h, mask, 0.5, progress)[mask]
        assert float(weight.mean()) == pytest.approx(1, abs=1e-12)
        assert (sign * weight[order].diff() >= -1e-12).all() and float(weight.std()) > 0.05
    assert torch.equal(scheduled_weights(h, mask, 0.5, 0.5), torch.ones_like(h))
    strong = scheduled_weights(h, mask, 5.0, 0.0)[mask]
    assert float(strong.max() / strong.min()) == pytest.approx(4.0)


def test_kappa_zero_is_dapo():
    batch = random_batch()
    ours = loss_and_gradient(made("attn_entropy@kappa=0"), batch, moved_logps(batch))
    theirs = loss_and_gradient(made("dapo"), batch, moved_logps(batch))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def chosen(tokens, batch):
    return made(f"attn_entropy@tokens={tokens}@share=0.3").token_mask(batch, None, 0.0)


def test_hard_choices_take_so_many_tokens_of_each_response_from_the_right_end():
    batch = random_batch(width=9)
    mask, h = batch.response_mask_BT, entropy(batch)
    expected = (0.3 * batch.lengths_B.double() - 1e-9).ceil().long()
    for tokens in ("anchors", "explorers", "random", "front", "back", "entropy"):
        kept = chosen(tokens, batch)
        assert torch.equal(kept.sum(1), expected) and not (kept & ~mask).any()
    for i in range(batch.size):
        rest = mask[i] & ~chosen("anchors", batch)[i]
        if rest.any():
            assert h[i][chosen("anchors", batch)[i]].max() <= h[i][rest].min()
            assert h[i][chosen("explorers", batch)[i]].min() >= h[i][mask[i] & ~chosen("explorers", batch)[i]].max()
    assert chosen("front", batch)[:, 0].all()


def test_the_position_matched_control_has_as_many_tokens_at_each_position():
    batch = random_batch(sizes=(20, 20), width=9)
    anchors, matched = chosen("anchors", batch), chosen("position_random", batch)
    assert torch.equal(anchors.sum(0), matched.sum(0)) and not torch.equal(anchors, matched)
    assert not (matched & ~batch.response_mask_BT).any()


def test_a_random_part_is_an_unbiased_sample_of_the_gradient():
    """Each token is kept equally often, so five times a fifth of the gradient has the mean of the whole."""
    total, count = torch.zeros(10), 400
    for seed in range(count):
        batch = random_batch(seed, sizes=(2,), width=10)
        batch = replace(batch, response_mask_BT=torch.ones_like(batch.response_mask_BT))
        total += made("attn_entropy@tokens=random").token_mask(batch, None, 0.0).float().mean(0)
    assert ((total / count - 0.2).abs() < 4 * math.sqrt(0.16 / (2 * count))).all()


def test_the_shuffled_control_moves_the_entropies_within_responses():
    batch = random_batch()
    ours, theirs = made().signal(batch), made("attn_entropy@shuffle=true").signal(batch)
    assert not torch.equal(ours, theirs)
    torch.testing.assert_close(ours.sort(1).values, theirs.sort(1).values)


@pytest.mark.parametrize("spec", ["attn_entropy", "attn_entropy@tokens=explorers@shuffle=true"])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
