"""GSPO: both variants against each other and a loop, its reduction to GRPO, and the kind's checks."""

from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.objective.checks import loss_and_gradient, moved_logps, random_batch
from methods.objective.gspo import sequence_ratios

WIDE = "gspo@clip_low=0.1@clip_high=0.15"


def made(text="gspo"):
    return MethodSpec.parse(text).build()


def test_loss_against_loops():
    batch = random_batch(3)
    logp = moved_logps(batch)
    loss, _ = loss_and_gradient(made(WIDE), batch, logp)
    adv, total = made().advantage(batch)[:, 0].tolist(), 0.0
    for i, n in enumerate(batch.lengths_B.tolist()):
        ratio = float((logp.detach() - batch.old_logps_BT)[i, :n].mean().exp())
        total -= min(ratio * adv[i], min(max(ratio, 0.9), 1.15) * adv[i])
    assert float(loss) == pytest.approx(total / batch.size, abs=1e-12)


def test_the_token_variant_has_the_same_value_and_gradient():
    batch = random_batch()
    ours, theirs = (
        loss_and_gradient(made(text), batch, moved_logps(batch)) for text in (WIDE, WIDE + "@variant=token")
    )
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    assert ours[1].any()


def test_responses_of_one_token_are_grpo():
    batch = random_batch(width=1)
    ours = loss_and_gradient(made("gspo@clip_low=0.2@clip_high=0.2"), batch, moved_logps(batch))
    theirs = loss_and_gradient(made("grpo"), batch, moved_logps(batch))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_what_one_token_gains_and_another_loses_cancels():
    batch = random_batch()
    row = int(batch.lengths_B.argmax())
    logp = moved_logps(batch).detach()
    before = sequence_ratios(logp, batch.old_logps_BT, batch.response_mask_BT)
    logp[row, 0] += 0.7
    logp[row, 1] -= 0.7
    after = sequence_ratios(logp, batch.old_logps_BT, batch.response_mask_BT)
    torch.testing.assert_close(after, before, atol=1e-12, rtol=0)


def test_an_empty_response_has_ratio_one():
    batch = random_batch()
    batch = replace(batch, response_mask_BT=batch.response_mask_BT.index_fill(0, torch.tensor([2]), False))
    found = sequence_ratios(moved_logps(batch), batch.old_logps_BT, batch.response_mask_BT)
    assert (found[2] == 1).all() and torch.isfinite(found).all()


@pytest.mark.parametrize("spec", ["gspo", WIDE + "@variant=token"])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
