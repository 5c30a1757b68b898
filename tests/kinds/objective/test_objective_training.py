"""The trainer, the workload, the probe and the checks, on a random model of a few thousand parameters."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.catalog import MethodSpec
from harness.errors import Refused, UsageError
from harness.kinds.method import PrepareContext
from harness.kinds.objective.audit import flat_gradient, gradient_noise
from harness.kinds.objective.checks import HashTask, random_batch
from harness.kinds.objective.frozen import frozen_loss, frozen_stages
from harness.kinds.objective.loop import Learner, describe, summary, train
from harness.kinds.objective.rollouts import chosen_logps, forward_responses
from harness.kinds.objective.samplers import with_old_policy
from harness.kinds.objective.update import frozen_batch
from harness.subjects.load import load_subject

BUDGET = "@updates=3@prompts_per_update=4@group_size=4@max_new_tokens=5"
CONTEXT = PrepareContext(0, Path("nowhere"), load_subject, lambda name: None)


def small(spec="grpo"):
    made = MethodSpec.parse(spec + BUDGET).build()
    object.__setattr__(made, "task", HashTask)
    return made


def test_record_and_its_summary(tiny, tmp_path):
    artifact = small().prepare(tiny, CONTEXT)
    torch.save(artifact, tmp_path / "a.pt")
    artifact = torch.load(tmp_path / "a.pt", weights_only=True)
    record = artifact["record"]
    assert len(record) == 3
    assert all(1 <= row["generated_tokens"] <= 4 * 4 * 5 for row in record)
    assert all(0 < row["effective_tokens"] <= row["trained_tokens"] <= row["generated_tokens"] for row in record)
    figures = {(m.metric, m.phase): m.value for m in small().training_measurements(artifact)}
    assert figures["updates", "train"] == 3
    assert figures["generated_tokens", "train"] == sum(row["generated_tokens"] for row in record)
    assert figures["train_reward_start", "train"] == record[0]["reward"]
    assert figures["train_reward_end", "train"] == record[-1]["reward"]
    assert figures["phase_seconds", "sample"] > 0


def test_start_and_end_are_means_of_a_tenth():
    row = dict.fromkeys(
        ("effective_tokens", "entropy", "frac_zero_groups", "generated_tokens", "seconds_old", "seconds_sample",
         "seconds_train", "slot_utilisation", "trained_tokens"), 1.0
    )  # fmt: skip
    figures = {m.metric: m.value for m in summary([row | {"reward": float(i)} for i in range(20)])}
    assert figures["train_reward_start"] == 0.5 and figures["train_reward_end"] == 18.5


def test_problems_and_noise_do_not_depend_on_the_objective(tiny):
    """Before the first step both methods have sampled the same responses."""
    records = [
        train(small(spec), replace(tiny, model=copy.deepcopy(tiny.model)), 0)[1] for spec in ("grpo", "balanced_agg")
    ]
    assert {k: records[0][0][k] for k in ("reward", "generated_tokens", "entropy")} == {
        k: records[1][0][k] for k in ("reward", "generated_tokens", "entropy")
    }


def test_seeds_differ(tiny):
    states = [small().prepare(tiny, replace(CONTEXT, seed=seed))["state"] for seed in (0, 1)]
    assert any(not torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def test_one_step_raises_the_probability_of_rewarded_responses(tiny):
    method = small("grpo@learning_rate=0.001@minibatches=1")
    batch = frozen_batch(method, tiny)
    model = copy.deepcopy(tiny.model)
    before = _sign_weighted(method, model, batch)
    Learner.of(method, replace(tiny, model=model)).update(batch, 0.0)
    assert _sign_weighted(method, model, batch) > before


def _sign_weighted(method, model, batch):
    with torch.no_grad():
        logps = with_old_policy(batch, model, method).old_logps_BT
        return float((method.advantage(batch) * logps).sum())


def test_second_minibatch_sees_ratios_off_one(tiny):
    """With one minibatch nothing can be clipped; with more and a large step something is."""
    for minibatches, clipped in ((1, False), (4, True)):
        method = small(f"grpo@minibatches={minibatches}@learning_rate=0.05")
        batch = frozen_batch(method, tiny)
        model = copy.deepcopy(tiny.model)
        figures = Learner.of(method, replace(tiny, model=model)).update(batch, 0.0)
        assert (figures["clip_low"] + figures["clip_high"] > 0) is clipped


def test_describe_marks_signs_that_do_not_occur():
    batch = random_batch()
    figures = describe(replace(batch, rewards_B=torch.zeros_like(batch.rewards_B)))
    assert figures["length_positive"] == -1 and figures["frac_zero_groups"] == 1
    assert figures["responses"] == batch.size
    assert figures["length_negative"] == pytest.approx(float(batch.lengths_B.float().mean()))


def test_update_workload_is_put_back(tiny):
    before = [p.clone() for p in tiny.model.parameters()]
    (workload,) = small().workloads(tiny)
    call = workload.make()
    first, second = call(), call()
    assert torch.equal(first, second) and first[1] > 0
    assert workload.units["tokens"] == int(frozen_batch(small(), tiny).lengths_B.sum())
    assert all(torch.equal(a, b) for a, b in zip(before, tiny.model.parameters(), strict=True))
    assert all(p.grad is None for p in tiny.model.parameters())


def test_audit_of_token_aggregation_is_the_yardstick(tiny):
    audits = {}
    for spec in ("grpo@aggregation=token", "grpo", "balanced_agg"):
        (_, probe) = MethodSpec.parse(spec).build().probes()
        audits[spec] = {m.metric: m.value for m in probe.measure(tiny)}
    token = audits["grpo@aggregation=token"]
    assert token["cosine_to_token"] == pytest.approx(1, abs=1e-6)
    assert token["norm_ratio_to_token"] == pytest.approx(1, abs=1e-6)
    assert token["length_gap"] > 1
    # At the snapshot the coupling of sign and length shows in the value, and only under token aggregation.
    assert abs(token["snapshot_loss"]) > 0.01 and token["positive_gradient_share"] < 0.48
    for spec in ("grpo", "balanced_agg"):
        assert audits[spec]["snapshot_loss"] == pytest.approx(0, abs=1e-6)
        assert audits[spec]["positive_gradient_share"] == pytest.approx(0.5, abs=1e-6)
    assert audits["grpo"]["effective_tokens"] < audits["balanced_agg"]["effective_tokens"] < token["effective_tokens"]


def test_gradient_noise_is_the_variance_between_groups_over_the_squared_mean(tiny):
    method = small()
    batch = frozen_batch(method, tiny)
    logps_BTV, _ = forward_responses(tiny.model, batch, 1.0)
    logp_BT = chosen_logps(logps_BTV, batch.response_ids_BT)
    frozen = frozen_stages(method, batch, 0.0)
    rows = [(batch.group_ids_B == group).nonzero()[:, 0] for group in batch.group_ids_B.unique()]
    each = torch.stack([flat_gradient(frozen_loss(method, frozen.part(r), logp_BT), tiny.model) for r in rows])
    wanted = each.var(dim=0).sum() / each.mean(0).square().sum()
    assert gradient_noise(method, frozen, logp_BT, tiny.model) == pytest.approx(float(wanted), rel=1e-6)
    alone = replace(frozen, batch=replace(batch, group_ids_B=torch.zeros_like(batch.group_ids_B)))
    assert gradient_noise(method, alone, logp_BT, tiny.model) is None
    dead = replace(frozen, adv_BT=torch.zeros_like(frozen.adv_BT))
    assert gradient_noise(method, dead, logp_BT, tiny.model) is None


def test_learning_curves_are_the_record(tiny):
    method = small()
    artifact = method.prepare(tiny, CONTEXT)
    rows = method.training_samples(artifact)
    curve = [row["value"] for row in rows if row["name"] == "reward"]
    assert curve == [row["reward"] for row in artifact["record"]]
    assert {row["unit"] for row in rows} == {0, 1, 2} and {row["side"] for row in rows} == {"update"}
    assert {"entropy", "grad_norm", "generated_tokens", "seconds_sample"} <= {row["name"] for row in rows}


def test_refusals(tiny):
    with pytest.raises(Refused, match="minibatches"):
        MethodSpec.parse("grpo@minibatches=3@prompts_per_update=2").build().prepare(tiny, CONTEXT)
    with pytest.raises(Refused, match="'train'"):
        small().prepare(replace(tiny, capabilities=tiny.capabilities - {"train"}), CONTEXT)
    with pytest.raises(Refused, match="no tokenizer"):
        small().prepare(replace(tiny, tokenizer=None), CONTEXT)
    with pytest.raises(Refused, match="no trained weights"), small().apply(tiny):
        pass
    with pytest.raises(UsageError, match="group_size"):
        MethodSpec.parse("grpo@group_size=1").build()


def test_coarse_types_are_trained_in_float32_and_given_back(tiny):
    coarse = replace(tiny, model=copy.deepcopy(tiny.model).bfloat16())
    artifact = small("grpo@learning_rate=0.01").prepare(coarse, CONTEXT)
    assert {v.dtype for v in artifact["state"].values()} == {torch.bfloat16}
    with small().apply(coarse, artifact) as opened:
        assert opened.dtype == torch.bfloat16
        assert torch.equal(opened.model.lm_head.weight, artifact["state"]["lm_head.weight"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_a_gpu():
    subject = load_subject("tiny-random", device="cuda")
    artifact = small().prepare(subject, CONTEXT)
    with small().apply(subject, artifact) as opened:
        assert opened.device.type == "cuda"


LEARNING = ["grpo", "balanced_agg", "reinforce@baseline=running_mean", "rloo", "dr_grpo", "dapo", "gspo", "ppo_gae"]
LEARNING += ["d3s", "temporal_schedule", "hapo", "tw_grpo", "attn_entropy", "thr", "flowtracer", "rto", "ton"]


@pytest.mark.slow
@pytest.mark.parametrize("spec", LEARNING)
def test_training_raises_the_sampled_reward(spec):
    subject = load_subject("tiny-chain-sum", device="cpu")
    method = MethodSpec.parse(spec + "@updates=25").build()
    record = method.prepare(subject, CONTEXT)["record"]
    assert sum(row["reward"] for row in record[-5:]) / 5 > sum(row["reward"] for row in record[:2]) / 2 + 0.2
