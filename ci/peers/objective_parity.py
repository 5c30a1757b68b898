"""Our objectives against TRL and verl: loss and gradient on the same random batches, in float64.

In an environment of its own (TRL and verl pin what Token Zoo does not):

    pip install -r ci/peers/requirements.txt && pip install --no-deps verl==0.9.1 -e .
    python ci/peers/objective_parity.py

Prints the largest difference of each pair over all batches; exit code 1 where one exceeds 1e-6. TRL's losses take our
advantages, because TRL makes its own inside the sampling loop; verl's advantages are compared as well.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer
from verl.trainer.ppo import core_algos as verl
from verl.workers.config import ActorConfig

from harness.catalog import MethodSpec
from harness.kinds.objective import RolloutBatch
from harness.kinds.objective.checks import moved_logps, random_batch
from harness.kinds.objective.frozen import frozen_loss, frozen_stages
from harness.kinds.objective.gae import clipped_value_loss
from harness.kinds.objective.stages import aggregate, clipped_surrogate, ratios

SEEDS, TOLERANCE, LONGEST = range(5), 1e-6, 32
Loss = Callable[[Tensor], Tensor]


def ours(spec: str, batch: RolloutBatch) -> tuple[Loss, Tensor]:
    """Our loss as a function of log-probabilities, and the advantages it uses."""
    method = MethodSpec.parse(spec).build()
    frozen = frozen_stages(method, batch, 0.0)
    return lambda logp_BT: frozen_loss(method, frozen, logp_BT), frozen.adv_BT


def trl_loss(trainer: type, batch: RolloutBatch, adv_BT: Tensor, **settings: object) -> Loss:
    """TRL's ``_compute_loss`` with a stand-in for the trainer that hands over our log-probabilities."""
    mask_BT = batch.response_mask_BT.double()

    def loss(logp_BT: Tensor) -> Tensor:
        held = {
            "_get_per_token_logps_and_entropies": lambda *_args, **_kw: (logp_BT, batch.entropy_BT, None),
            "accelerator": SimpleNamespace(
                num_processes=1, gather=lambda x: x, reduce=lambda x, **_kw: x, gather_for_metrics=lambda x: x
            ),
            "args": SimpleNamespace(delta=None, steps_per_generation=1),
            "model": SimpleNamespace(training=True),
            "_metrics": {"train": defaultdict(list)},
            "aux_loss_enabled": False,
            "_entropy_bonus_enabled": False,
            "top_entropy_quantile": 1.0,
            "off_policy_mask_threshold": None,
            "importance_sampling_level": "token",
            "epsilon_low": 0.2,
            "epsilon_high": 0.2,
            "beta": 0.0,
            "use_vllm": False,
            "current_gradient_accumulation_steps": 1,
            "max_completion_length": LONGEST,
        } | settings
        inputs = {
            "prompt_ids": batch.prompt_ids_BP,
            "prompt_mask": batch.prompt_mask_BP,
            "completion_ids": batch.response_ids_BT,
            "completion_mask": mask_BT,
            "advantages": adv_BT[:, 0],
            "old_per_token_logps": batch.old_logps_BT,
            "old_logps": (batch.old_logps_BT * mask_BT).sum(1),
            "num_items_in_batch": mask_BT.sum(),
        }
        return trainer._compute_loss(SimpleNamespace(**held), None, inputs)

    return loss


def verl_loss(rule: Callable, batch: RolloutBatch, adv_BT: Tensor, mode: str, **settings: float) -> Loss:
    """One of verl's policy losses."""
    config = ActorConfig(
        strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, **({"clip_ratio_c": 1e9} | settings)
    )
    mask_BT = batch.response_mask_BT.double()
    return lambda logp_BT: rule(batch.old_logps_BT, logp_BT, adv_BT, mask_BT, mode, config)[0]


def verl_advantage(rule: Callable, batch: RolloutBatch, **settings: object) -> Tensor:
    """One of verl's advantages of whole responses."""
    mask_BT = batch.response_mask_BT.double()
    rewards_BT = torch.zeros_like(mask_BT).index_put((torch.arange(batch.size), batch.lengths_B - 1), batch.rewards_B)
    return rule(rewards_BT, mask_BT, batch.group_ids_B.numpy(), **settings)[0]


def differs(one: Loss, other: Loss, at_BT: Tensor) -> float:
    """The larger of the differences in value and in gradient."""
    found = []
    for loss in (one, other):
        logp_BT = at_BT.detach().clone().requires_grad_()
        value = loss(logp_BT)
        found.append((value.detach(), torch.autograd.grad(value, logp_BT)[0]))
    return max(float((a - b).abs().max()) for a, b in zip(*found, strict=True))


def trl_pairs(batch: RolloutBatch) -> Iterator[tuple[str, float]]:
    """Differences from TRL's losses."""
    moved_BT = moved_logps(batch)
    for spec, settings in {
        "grpo": {"loss_type": "grpo"},
        "grpo@aggregation=token": {"loss_type": "dapo"},
        f"dr_grpo@max_new_tokens={LONGEST}": {"loss_type": "dr_grpo"},
        "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
        "gspo@clip_low=0.1@clip_high=0.15": {
            "loss_type": "grpo",
            "importance_sampling_level": "sequence",
            "epsilon_low": 0.1,
            "epsilon_high": 0.15,
        },
    }.items():
        loss, adv_BT = ours(spec, batch)
        theirs = trl_loss(GRPOTrainer, batch, adv_BT, **settings)
        yield f"{spec}: TRL {settings['loss_type']}", differs(loss, theirs, moved_BT)
    loss, adv_BT = ours("rloo", batch)
    theirs = trl_loss(RLOOTrainer, batch, adv_BT)
    # TRL's value is that of a ratio, ours of a log-probability; at the snapshot the gradients are the same.
    at_BT = batch.old_logps_BT.clone().requires_grad_()
    ours_BT, theirs_BT = (torch.autograd.grad(f(at_BT), at_BT)[0] for f in (loss, theirs))
    yield "rloo, gradient at the snapshot: TRL RLOO", float((ours_BT - theirs_BT).abs().max())


def verl_pairs(batch: RolloutBatch) -> Iterator[tuple[str, float]]:
    """Differences from verl's advantages, losses and GAE."""
    moved_BT, mask_BT = moved_logps(batch), batch.response_mask_BT
    weight_BT = mask_BT.double()
    for spec, rule, settings in (
        ("grpo@eps=1e-6", verl.compute_grpo_outcome_advantage, {}),
        ("dr_grpo", verl.compute_grpo_outcome_advantage, {"norm_adv_by_std_in_grpo": False}),
        ("rloo", verl.compute_rloo_outcome_advantage, {}),
    ):
        adv_BT = ours(spec, batch)[1] * weight_BT
        yield f"{spec}, advantage: verl", float((adv_BT - verl_advantage(rule, batch, **settings)).abs().max())
    for spec, rule, mode, settings in (
        ("grpo", verl.compute_policy_loss_vanilla, "seq-mean-token-mean", {"clip_ratio": 0.2}),
        ("grpo@aggregation=token", verl.compute_policy_loss_vanilla, "token-mean", {"clip_ratio": 0.2}),
        ("dapo", verl.compute_policy_loss_vanilla, "token-mean", {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}),
        (
            "gspo@variant=token@clip_low=0.1@clip_high=0.15",
            verl.compute_policy_loss_gspo,
            "seq-mean-token-mean",
            {"clip_ratio_low": 0.1, "clip_ratio_high": 0.15},
        ),
        ("ppo_gae", verl.compute_policy_loss_vanilla, "token-mean", {"clip_ratio": 0.2}),
    ):
        loss, adv_BT = ours(spec, batch)
        yield f"{spec}: verl {mode}", differs(loss, verl_loss(rule, batch, adv_BT, mode, **settings), moved_BT)
    loss, adv_BT = ours(f"dr_grpo@max_new_tokens={LONGEST}", batch)
    theirs = verl_loss(verl.compute_policy_loss_vanilla, batch, adv_BT, "seq-mean-token-sum", clip_ratio=0.2)
    yield "dr_grpo: verl seq-mean-token-sum / L_max", differs(loss, lambda x: theirs(x) / LONGEST, moved_BT)

    def dual(logp_BT: Tensor) -> Tensor:
        ratio_BT = ratios(logp_BT, batch.old_logps_BT)
        return aggregate(clipped_surrogate(ratio_BT, 9 * adv_BT, 0.2, 0.2, dual=1.1), mask_BT, "token")

    theirs = verl_loss(
        verl.compute_policy_loss_vanilla, batch, 9 * adv_BT, "token-mean", clip_ratio=0.2, clip_ratio_c=1.1
    )
    yield "dual clip: verl", differs(dual, theirs, moved_BT)
    method = MethodSpec.parse("ppo_gae").build()
    adv_BT, returns_BT = verl.compute_gae_advantage_return(
        method.token_rewards(batch), batch.values_BT, weight_BT, method.gamma, method.lam
    )
    yield "ppo_gae, whitened advantage: verl", float((method.advantage(batch) - adv_BT * weight_BT).abs().max())
    yield "ppo_gae, returns: verl", float(((method.estimates(batch)[1] - returns_BT) * weight_BT).abs().max())
    now_BT = batch.values_BT + 0.3 * moved_BT.detach()
    yield (
        "ppo_gae, value loss: verl",
        differs(
            lambda v: clipped_value_loss(v, batch.values_BT, returns_BT, mask_BT, 0.2),
            lambda v: verl.compute_value_loss(v, returns_BT, batch.values_BT, weight_BT, 0.2)[0],
            now_BT,
        ),
    )


def main() -> int:
    """Print the table; 1 where a difference is too large."""
    worst: dict[str, float] = {}
    for seed in SEEDS:
        batch = random_batch(seed)
        batch = replace(batch, rewards_B=batch.rewards_B + 0.1 * torch.rand_like(batch.rewards_B))
        for name, value in (*trl_pairs(batch), *verl_pairs(batch)):
            worst[name] = max(worst.get(name, 0.0), value)
    for name, value in worst.items():
        print(f"{value:9.2e}  {'ok ' if value <= TOLERANCE else 'BAD'}  {name}")
    return int(any(value > TOLERANCE for value in worst.values()))


if __name__ == "__main__":
    sys.exit(main())
