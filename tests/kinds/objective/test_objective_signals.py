"""What the old policy tells, rows and tokens that are selected, critics, and trainings that are taken up again."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.catalog import MethodSpec
from harness.kinds.objective import progress
from harness.kinds.objective.checks import HashTask, random_batch
from harness.kinds.objective.copies import training_copy
from harness.kinds.objective.frozen import frozen_loss, frozen_stages
from harness.kinds.objective.loop import Learner, train
from harness.kinds.objective.rollouts import Sampling, chosen_logps, input_ids
from harness.kinds.objective.samplers import attention_maps, with_old_policy
from harness.kinds.objective.update import frozen_batch

BUDGET = "@updates=4@prompts_per_update=4@group_size=4@max_new_tokens=5"


def small(spec="grpo", **changed):
    made = MethodSpec.parse(spec + BUDGET).build()
    object.__setattr__(made, "task", HashTask)
    for name, value in changed.items():
        object.__setattr__(made, name, value)
    return made


def test_states_and_laws_are_those_that_predict_each_token(tiny):
    method = small(requires=frozenset({"hidden", "logps"}))
    batch = with_old_policy(frozen_batch(method, tiny), tiny.model, method)
    with torch.no_grad():
        again = tiny.model.get_output_embeddings()(batch.hidden_BTD).float().log_softmax(-1)
    mask = batch.response_mask_BT
    torch.testing.assert_close(again[mask], batch.logps_BTV[mask])
    torch.testing.assert_close(chosen_logps(batch.logps_BTV, batch.response_ids_BT)[mask], batch.old_logps_BT[mask])
    assert with_old_policy(batch, tiny.model, small()).hidden_BTD is batch.hidden_BTD


def test_attention_maps_are_causal_rows_that_sum_to_one_and_the_model_is_as_before(tiny):
    batch = frozen_batch(small(), tiny)
    short = replace(batch, prompt_mask_BP=batch.prompt_mask_BP.index_fill(1, torch.tensor([0]), False))
    before = tiny.model.config._attn_implementation
    maps = attention_maps(tiny.model, short, [0, 1], rows=3)
    assert tiny.model.config._attn_implementation == before
    assert maps.shape == (
        batch.size,
        *2 * (input_ids(short.prompt_ids_BP, short.prompt_mask_BP, short.response_ids_BT)[0].shape[1],),
    )
    real = maps[:, 1:]
    torch.testing.assert_close(real.sum(-1), torch.ones(real.shape[:2]))
    assert not real[:, :, 0].any() and not maps.triu(1)[:, 1:].any()
    first, second = (attention_maps(tiny.model, short, [layer]) for layer in (0, 1))
    torch.testing.assert_close(maps[:, 1:], ((first + second) / 2)[:, 1:])


def test_rows_that_are_not_selected_and_tokens_that_are_masked_get_no_gradient():
    keep = torch.tensor([6, 2, 9, 0])
    method = small(
        select=lambda batch, adv, progress: keep,
        token_mask=lambda batch, adv, progress: torch.arange(7).expand(4, 7) < 2,
    )
    batch = random_batch()
    logp = batch.old_logps_BT.clone().requires_grad_()
    frozen = frozen_stages(method, batch, 0.0)
    (gradient,) = torch.autograd.grad(frozen_loss(method, frozen, logp), logp)
    others = [row for row in range(batch.size) if row not in keep.tolist()]
    assert torch.equal(frozen.rows_N, keep) and not gradient[others].any() and not gradient[:, 2:].any()
    # The advantages are those of the whole batch, and the mean is over the four rows that stay.
    adv = method.advantage(batch)
    for row in keep.tolist():
        count = min(int(batch.lengths_B[row]), 2)
        assert gradient[row, 0] == pytest.approx(-float(adv[row, 0]) / count / 4, abs=1e-12)


def test_shaped_rewards_reach_the_advantages_and_not_the_batch():
    method = small(rewards=lambda batch: batch.rewards_B - batch.lengths_B)
    batch = random_batch()
    adv = frozen_stages(method, batch, 0.0).adv_BT
    assert not torch.allclose(adv, small().advantage(batch)) and set(batch.rewards_B.tolist()) == {0.0, 1.0}


def test_a_tempered_law_is_the_one_that_is_drawn_from():
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    law = Sampling(
        group_size=1, max_new_tokens=1, temperature=9.0, temper=lambda logits: torch.tensor([[0.5], [2.0]])
    ).law(logits)
    torch.testing.assert_close(law, torch.stack([(logits[0] / 0.5).log_softmax(-1), (logits[1] / 2).log_softmax(-1)]))


class Critic(nn.Linear):
    def forward(self, hidden):
        return super().forward(hidden)[..., 0]


def test_a_critic_is_trained_beside_the_policy_and_its_old_values_are_read(tiny):
    subject = training_copy(tiny)
    method = small(critic=lambda subject: Critic(subject.model.config.hidden_size, 1))
    object.__setattr__(method, "value_loss", lambda values, batch: (values - 1)[batch.response_mask_BT].square().mean())
    learner = Learner.of(method, subject)
    batch = with_old_policy(frozen_batch(method, subject), subject.model, method, learner.critic)
    assert batch.values_BT.shape == batch.old_logps_BT.shape and batch.values_BT[batch.response_mask_BT].any()
    for _ in range(30):
        learner.update(batch, 0.0)
    after = with_old_policy(batch, subject.model, method, learner.critic)
    mask = batch.response_mask_BT
    assert (after.values_BT[mask] - 1).abs().mean() < (batch.values_BT[mask] - 1).abs().mean()


class Killed(Exception):
    pass


REMEMBERING = ["tppo@window=1@value_warmup=0", "reinforce@baseline=running_mean", "hapo", "ppo_gae", "rto@dpo_steps=2"]


@pytest.mark.parametrize("spec", ["grpo", *REMEMBERING])
def test_a_training_that_was_killed_ends_bit_for_bit_as_if_it_had_not_been(tiny, tmp_path, monkeypatch, spec):
    whole, record = train(small(spec), training_copy(tiny), 0, tmp_path / "whole")
    monkeypatch.setattr(progress, "SECONDS_BETWEEN", 0.0)
    broken = small(spec)
    sampler = broken.sampler

    def failing(subject, seed):
        held = sampler(subject, seed)

        class Failing:
            def sample(self, step, previous):
                if step == 2:
                    raise Killed
                return held.sample(step, previous)

        return Failing()

    object.__setattr__(broken, "sampler", failing)
    with pytest.raises(Killed):
        train(broken, training_copy(tiny), 0, tmp_path / "cut")
    resumed, rest = train(small(spec), training_copy(tiny), 0, tmp_path / "cut")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    timed = [name for name in record[0] if name.startswith("seconds")]
    assert [{k: v for k, v in row.items() if k not in timed} for row in record] == [
        {k: v for k, v in row.items() if k not in timed} for row in rest
    ]
