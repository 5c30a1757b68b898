"""Dr. GRPO: its gradient in closed form, linear in length, and the kind's checks."""

from dataclasses import replace

import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.objective.checks import loss_and_gradient, moved_logps, random_batch


def made(text="dr_grpo"):
    return MethodSpec.parse(text).build()


def test_every_token_weighs_the_same_wherever_it_stands():
    batch = random_batch()
    logp = batch.old_logps_BT.clone().requires_grad_()
    _, gradient = loss_and_gradient(made("dr_grpo@max_new_tokens=11"), batch, logp)
    expected = -made().advantage(batch) * batch.response_mask_BT / (batch.size * 11)
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=0)


def test_a_response_of_twice_the_tokens_contributes_twice():
    batch = random_batch(width=6)
    row = int(batch.rewards_B.argmax())
    single, double = batch.response_mask_BT.clone(), batch.response_mask_BT.clone()
    single[row], double[row] = torch.arange(6) < 3, True
    logp = moved_logps(batch).detach()
    logp[row, 3:], batch.old_logps_BT[row, 3:] = logp[row, :3], batch.old_logps_BT[row, :3]
    sums = [
        loss_and_gradient(made(), replace(batch, response_mask_BT=mask), logp.clone().requires_grad_())[1][row].sum()
        for mask in (single, double)
    ]
    torch.testing.assert_close(sums[1], 2 * sums[0], atol=1e-12, rtol=0)


def test_checks(tiny):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(), tiny) if not r.passed] == []
