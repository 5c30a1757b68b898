"""PPO with a critic: GAE's invariants and a loop, whitening, the value loss, and the kind's checks."""

from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.method import PrepareContext
from harness.kinds.objective.checks import HashTask, loss_and_gradient, moved_logps, random_batch
from harness.kinds.objective.gae import clipped_value_loss, gae, outcome_at_end, whiten


def made(text="ppo_gae"):
    return MethodSpec.parse(text).build()


def case(seed=0):
    batch = random_batch(seed)
    return torch.rand_like(batch.values_BT), batch.values_BT, batch.response_mask_BT


def oracle(rewards, values, gamma, lam, last):
    """Advantages of one response, as the sum of discounted errors."""
    after = [*values[1:], last]
    errors = [r + gamma * n - v for r, v, n in zip(rewards, values, after, strict=True)]
    return [sum((gamma * lam) ** (j - t) * errors[j] for j in range(t, len(errors))) for t in range(len(errors))]


@pytest.mark.parametrize("bootstrap", ["zero", "last_value", "given"])
def test_gae_against_its_definition(bootstrap):
    rewards, values, mask = case()
    given = torch.linspace(0, 1, len(mask)).double()
    found, returns = gae(rewards, values, mask, 0.9, 0.7, given if bootstrap == "given" else bootstrap)
    for i, n in enumerate(mask.sum(1).tolist()):
        row = values[i, :n].tolist()
        last = {"zero": 0.0, "last_value": row[-1], "given": float(given[i])}[bootstrap]
        assert found[i, :n].tolist() == pytest.approx(oracle(rewards[i, :n].tolist(), row, 0.9, 0.7, last))
    torch.testing.assert_close(returns, found + values * mask)
    assert not found[~mask].any() and not returns[~mask].any()


def test_masked_positions_are_stepped_over():
    rewards, values, _ = case()
    mask = torch.zeros_like(rewards, dtype=torch.bool)
    mask[:, [0, 2, 5]] = True
    found, _ = gae(rewards, values, mask, 0.9, 0.7)
    short, _ = gae(rewards[:, [0, 2, 5]], values[:, [0, 2, 5]], mask[:, [0, 2, 5]], 0.9, 0.7)
    torch.testing.assert_close(found[:, [0, 2, 5]], short)


def test_without_discount_advantages_are_the_reward_less_the_value():
    batch = random_batch()
    mask = batch.response_mask_BT
    found, returns = gae(outcome_at_end(batch.rewards_B, mask), batch.values_BT, mask, 1.0, 1.0)
    reward = batch.rewards_B[:, None].expand_as(found)
    torch.testing.assert_close(found[mask], (reward - batch.values_BT)[mask])
    torch.testing.assert_close(returns[mask], reward[mask])
    plain, _ = gae(outcome_at_end(batch.rewards_B, mask), torch.zeros_like(batch.values_BT), mask, 1.0, 1.0)
    torch.testing.assert_close(plain[mask], reward[mask])


def test_lambda_zero_is_one_step_ahead():
    rewards, values, mask = case()
    found, _ = gae(rewards, values, mask, 0.9, 0.0)
    after = torch.cat([(values * mask)[:, 1:], torch.zeros(len(mask), 1)], 1)
    torch.testing.assert_close(found, (rewards + 0.9 * after - values) * mask)


def test_whitened_advantages_have_mean_zero_and_variance_one():
    _, values, mask = case()
    found = whiten(values * 3 + 2, mask)
    assert float(found[mask].mean()) == pytest.approx(0, abs=1e-12)
    assert float(found[mask].var()) == pytest.approx(1, abs=1e-6) and not found[~mask].any()
    assert torch.isfinite(whiten(torch.ones_like(values), mask)).all()


def test_the_value_loss_takes_the_worse_of_two_errors():
    mask, returns = torch.tensor([[True, True, False]]), torch.tensor([[1.0, 1.0, 9.0]])
    old, now = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[0.9, 0.1, 5.0]])
    assert float(clipped_value_loss(now, old, returns, mask, 0.2)) == pytest.approx(0.5 * (0.8**2 + 0.9**2) / 2)
    assert float(clipped_value_loss(now, old, returns, mask, None)) == pytest.approx(0.5 * (0.1**2 + 0.9**2) / 2)
    assert float(clipped_value_loss(now, old, returns, torch.zeros_like(mask), 0.2)) == 0


def test_returns_of_a_minibatch_are_those_of_the_batch():
    batch, method = random_batch(), made()
    rows = torch.tensor([7, 1, 4])
    torch.testing.assert_close(method.estimates(batch.rows(rows))[1], method.estimates(batch)[1][rows])


def test_a_batch_without_values_has_values_zero():
    batch = random_batch()
    bare, zero = (replace(batch, values_BT=v) for v in (None, torch.zeros_like(batch.values_BT)))
    assert torch.equal(made().advantage(bare), made().advantage(zero))
    assert loss_and_gradient(made("ppo_gae@aggregation=seq"), bare, moved_logps(batch))[1].any()


def test_the_critic_learns_and_a_detached_one_leaves_the_trunk_alone(tiny):
    method = made("ppo_gae@detach_critic=true")
    hidden = torch.randn(2, 3, tiny.model.config.hidden_size, requires_grad=True)
    head = method.critic(tiny)
    assert not head(hidden).any()
    with torch.no_grad():
        head.linear.weight.fill_(1.0)
    head(hidden).sum().backward()
    assert hidden.grad is None and head.linear.weight.grad.any()
    made().critic(tiny)(hidden).sum().backward()
    assert hidden.grad is not None


def test_training_moves_the_critic(tiny, tmp_path):
    heads = []
    method = made("ppo_gae@updates=2@prompts_per_update=2@group_size=4@max_new_tokens=4")
    object.__setattr__(method, "task", HashTask)
    rule = method.critic
    object.__setattr__(method, "critic", lambda subject: heads.append(rule(subject)) or heads[-1])
    method.prepare(tiny, PrepareContext(0, tmp_path, None, None))
    assert heads[0].linear.weight.any() and heads[0].linear.bias.any()


@pytest.mark.parametrize("spec", ["ppo_gae", "ppo_gae@aggregation=seq@lam=1"])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
