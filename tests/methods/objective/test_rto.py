"""RTO: its token rewards and their invariants, the fixed point of its gradient, DPO, and the kind's checks."""

import math
import random
from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.method import PrepareContext
from harness.kinds.objective.checks import HashTask, loss_and_gradient, moved_logps, random_batch
from harness.kinds.objective.gae import outcome_at_end
from harness.kinds.objective.preferences import dpo_loss, dpo_trained, draw_pair
from harness.kinds.objective.texts import Encoded
from harness.toolkit.pref_tokens import PrefText, hidden_scores
from harness.toolkit.verifiable import ToyTask

FREE = "@token_clip=1e9"


def made(text="rto"):
    return MethodSpec.parse(text).build()


def test_without_the_clamp_the_dense_rewards_sum_to_the_log_ratio_of_the_response():
    batch = random_batch()
    found = made("rto@beta_2=0@beta_3=0" + FREE).token_rewards(batch)
    ratio = ((batch.guide_logps_BT - batch.reference_logps_BT) * batch.response_mask_BT).sum(1)
    torch.testing.assert_close(found.sum(1), 0.05 * ratio)


def test_a_guide_like_the_reference_leaves_ppo_with_a_penalty():
    batch = random_batch()
    batch = replace(batch, guide_logps_BT=batch.reference_logps_BT)
    mask = batch.response_mask_BT
    penalty = 0.01 * (batch.old_logps_BT - batch.reference_logps_BT) * mask
    torch.testing.assert_close(made().token_rewards(batch), outcome_at_end(batch.rewards_B, mask) - penalty)
    plain = replace(batch, guide_logps_BT=None)
    ours = loss_and_gradient(made(), plain, moved_logps(plain))
    theirs = loss_and_gradient(made("ppo_gae@aggregation=seq"), plain, moved_logps(plain))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_the_clamp_is_symmetric_and_rewards_end_with_the_response():
    batch = random_batch()
    swapped = replace(batch, guide_logps_BT=batch.reference_logps_BT, reference_logps_BT=batch.guide_logps_BT)
    method = made("rto@beta_2=0@beta_3=0")
    found = method.token_rewards(batch)
    assert torch.equal(found, -method.token_rewards(swapped)) and not found[~batch.response_mask_BT].any()
    assert float(found.abs().max()) == 0.05
    large = replace(batch, rewards_B=torch.full_like(batch.rewards_B, 50.0))
    assert float(made("rto@beta_1=0@beta_2=0").token_rewards(large).max()) == 10


def test_the_same_total_at_the_end_has_the_same_return_and_other_advantages():
    batch = random_batch()
    token, end = (made(f"rto@gamma=1@lam=1@placement={p}") for p in ("token", "end"))
    torch.testing.assert_close(token.estimates(batch)[0][:, 0], end.estimates(batch)[0][:, 0])
    assert not torch.allclose(token.estimates(batch)[0], end.estimates(batch)[0])


def test_with_equal_betas_the_gradient_is_that_of_the_divergence_from_the_guide(bandit):
    """So its one fixed point is the guide; enumerated over all answers."""
    case = bandit()
    table = torch.randn(case.table.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    method = made("rto@beta_1=0.05@beta_2=0.05@beta_3=0@lam=1" + FREE)

    def weight_of(guide):
        def weights(batch):
            judged = replace(batch, guide_logps_BT=guide, reference_logps_BT=torch.zeros_like(guide))
            return method.estimates(judged)[0]

        return weights

    policy = case.table.clone().requires_grad_()
    chance = case.logps(policy).sum(1).exp()
    divergence = (chance * (case.logps(policy) - case.logps(table)).sum(1)).sum()
    expected = -0.05 * torch.autograd.grad(divergence, policy)[0]
    torch.testing.assert_close(case.expected_gradient(weight_of(case.logps(table)), 1), expected, atol=1e-12, rtol=0)
    assert not case.expected_gradient(weight_of(case.logps(case.table)), 1).any()


def test_dpo_at_the_reference_is_log_two_and_falls_with_the_margin():
    zero = torch.zeros(3)
    assert float(dpo_loss(zero, zero, 0.1)) == pytest.approx(math.log(2))
    assert float(dpo_loss(zero + 5, zero, 0.1)) == pytest.approx(math.log(1 + math.exp(-0.5)))


def test_judges_prefer_by_bradley_and_terry():
    task, rng, right, expected = ToyTask(text=PrefText(longest=3)), random.Random(0), 0, 0.0
    for _ in range(4000):
        problem, chosen, rejected = draw_pair(task, rng)
        gap = abs(task.reward(problem, chosen) - task.reward(problem, rejected))
        right += task.reward(problem, chosen) >= task.reward(problem, rejected)
        expected += 1 / (1 + math.exp(-gap)) if gap else 1.0
    assert abs(right - expected) < 4 * math.sqrt(4000) / 2


def test_hidden_scores_are_one_a_symbol_and_add_up():
    scores = hidden_scores()
    assert len(scores) == 12 and sum(scores.values()) == pytest.approx(0) and max(scores.values()) == 1
    assert ToyTask(text=PrefText()).reward("3", "01") == pytest.approx(scores["0"] + scores["1"])
    assert ToyTask(text=PrefText()).reward("3", "x") == -1


def test_token_rewards_of_dpo_follow_the_hidden_scores(tiny):
    task = ToyTask(text=PrefText())
    guide = dpo_trained(tiny, task, 0, 0.1, 60, 16, 3e-3)
    rng = random.Random("held out")
    problems = [task.draw(rng) for _ in range(40)]
    texts = [task.written(problem, rng) for problem in problems]
    held = Encoded.of(tiny, task, problems, texts)
    with torch.no_grad():
        reward = held.logps(guide) - held.logps(tiny.model)
    scores = hidden_scores()
    pairs = [(float(reward[i, t]), scores[c]) for i, text in enumerate(texts) for t, c in enumerate(text)]
    assert float(torch.corrcoef(torch.tensor(pairs).T)[0, 1]) > 0.7


def test_the_sampler_asks_both_models_and_leaves_the_subject_alone(tiny):
    before = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    method = made("rto@dpo_steps=3@prompts_per_update=2@group_size=3@max_new_tokens=4")
    object.__setattr__(method, "task", HashTask)
    batch, _ = method.sampler(tiny, 0).sample(0, None)
    mask = batch.response_mask_BT
    torch.testing.assert_close(batch.reference_logps_BT[mask], batch.behavior_logps_BT[mask], atol=1e-4, rtol=1e-4)
    assert (batch.guide_logps_BT != batch.reference_logps_BT)[mask].any()
    assert all(torch.equal(value, before[name]) for name, value in tiny.model.state_dict().items())


def test_training_on_hidden_scores_runs(tiny, tmp_path):
    method = made("rto@dpo_steps=3@updates=2@prompts_per_update=2@group_size=3@max_new_tokens=4")
    object.__setattr__(method, "task", lambda held_out=False: ToyTask(text=PrefText()))
    record = method.prepare(tiny, PrepareContext(0, tmp_path, None, None))["record"]
    assert len(record) == 2 and all(math.isfinite(row["loss"]) for row in record)


@pytest.mark.parametrize("spec", ["rto@dpo_steps=3", "rto@dpo_steps=3@placement=end@beta_2=0"])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
