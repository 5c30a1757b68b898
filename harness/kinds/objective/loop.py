"""The trainer: sample, grade, read old log-probabilities, step, and record what happened."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.kinds.method import Measurement
from harness.kinds.objective.base import ObjectiveMethod, frozen_stages, rows_of
from harness.kinds.objective.batch import RolloutBatch
from harness.kinds.objective.rollouts import chosen_logps, sampled_batch, token_logps
from harness.kinds.objective.stages import clip_fractions, effective_tokens, masked, ratios, zero_groups
from harness.subjects.decode import synchronize
from harness.subjects.subject import Subject
from harness.toolkit.trainer import adamw, optimizer_step

Record = list[dict[str, float]]


@torch.no_grad()
def with_old_policy(batch: RolloutBatch, model: Any, temperature: float) -> RolloutBatch:
    """The batch with log-probabilities and entropy of the model as it is now."""
    logps_BTV = token_logps(model, (batch.prompt_ids_BP, batch.prompt_mask_BP), batch.response_ids_BT, temperature)
    entropy_BT = -(logps_BTV.exp() * logps_BTV).sum(-1)
    mask_BT = batch.response_mask_BT
    old_BT = masked(chosen_logps(logps_BTV, batch.response_ids_BT), mask_BT)
    return replace(batch, old_logps_BT=old_BT, entropy_BT=masked(entropy_BT, mask_BT))


def update(
    method: ObjectiveMethod, model: Any, optimizer: torch.optim.Optimizer, batch: RolloutBatch, progress: float
) -> dict[str, float]:
    """One optimizer step a minibatch; returns figures of the steps (means, token counts summed)."""
    adv_BT, weight_BT = frozen_stages(method, batch, progress)
    seen: list[dict[str, float]] = []
    for index_N in batch.minibatches(method.minibatches):
        part, part_adv = batch.rows(index_N), adv_BT[index_N]
        prompts = (part.prompt_ids_BP, part.prompt_mask_BP)
        logps_BTV = token_logps(model, prompts, part.response_ids_BT, method.temperature)
        logp_BT = chosen_logps(logps_BTV, part.response_ids_BT)
        logp_BT.retain_grad()
        loss = method.loss(logp_BT, part, part_adv, rows_of(weight_BT, index_N))
        norm = optimizer_step(optimizer, loss)
        mask_BT = part.response_mask_BT
        ratio_BT = ratios(logp_BT.detach(), part.old_logps_BT)
        low, high = clip_fractions(ratio_BT, part_adv, mask_BT, method.clip_low, method.clip_high)
        used_BT = torch.zeros_like(ratio_BT) if logp_BT.grad is None else logp_BT.grad
        seen.append(
            {
                "loss": float(loss.detach()),
                "grad_norm": float(norm),
                "clip_low": low,
                "clip_high": high,
                "effective_tokens": float(effective_tokens(used_BT)),
                "trained_tokens": float((used_BT != 0).sum()),
            }
        )
    means = {name: sum(s[name] for s in seen) / len(seen) for name in seen[0]}
    sums = {name: sum(s[name] for s in seen) for name in ("effective_tokens", "trained_tokens")}
    return means | sums


def describe(batch: RolloutBatch) -> dict[str, float]:
    """Figures of a rollout batch. A mean length of a sign that does not occur is -1."""
    length_B, right_B = batch.lengths_B.float(), batch.rewards_B > 0
    tokens = int(batch.lengths_B.sum())
    return {
        "reward": float(batch.rewards_B.mean()),
        "frac_zero_groups": float(zero_groups(batch.rewards_B, batch.group_ids_B).float().mean()),
        "length_positive": float(length_B[right_B].mean()) if bool(right_B.any()) else -1.0,
        "length_negative": float(length_B[~right_B].mean()) if bool((~right_B).any()) else -1.0,
        "finished": float(batch.finished_B.float().mean()),
        "entropy": float(batch.entropy_BT.sum()) / max(tokens, 1),
        "generated_tokens": float(tokens),
    }


def train(method: ObjectiveMethod, subject: Subject, seed: int) -> tuple[dict[str, Tensor], Record]:
    """Train the subject's own model for the method's budget; returns its weights (on the CPU) and the record.

    Problems and sampling noise of update ``u`` follow from ``seed`` and ``u`` alone, so that methods that are compared
    meet the same problems.
    """
    task, model = method.task(), subject.model
    model.eval()
    optimizer = adamw(model, method.learning_rate)
    record: Record = []
    for step in range(method.updates):
        rng = random.Random(f"{seed}/{step}")
        generator = torch.Generator(subject.device).manual_seed(seed * 1_000_003 + step)
        problems = [task.draw(rng) for _ in range(method.prompts_per_update)]
        stamps = [time.perf_counter()]
        batch = sampled_batch(subject, task, problems, method.sampling, generator)
        stamps.append(_now(subject))
        batch = with_old_policy(batch, model, method.temperature)
        stamps.append(_now(subject))
        figures = update(method, model, optimizer, batch, step / method.updates)
        stamps.append(_now(subject))
        names = ("seconds_sample", "seconds_old", "seconds_train")
        spans = {name: stamps[i + 1] - stamps[i] for i, name in enumerate(names)}
        record.append(describe(batch) | figures | spans)
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}, record


def _now(subject: Subject) -> float:
    synchronize(subject.device)
    return time.perf_counter()


def summary(record: Record) -> Sequence[Measurement]:
    """Figures of a whole training. Starts and ends are means over the first and the last tenth of the updates."""
    tenth = max(1, round(len(record) / 10))

    def mean(name: str, rows: Record = record) -> float:
        return sum(row[name] for row in rows) / len(rows)

    def total(name: str) -> float:
        return sum(row[name] for row in record)

    seconds = {part: total(f"seconds_{part}") for part in ("sample", "old", "train")}
    counted = {
        "train_reward_start": mean("reward", record[:tenth]),
        "train_reward_end": mean("reward", record[-tenth:]),
        "updates": float(len(record)),
        "generated_tokens": total("generated_tokens"),
        "trained_tokens": total("trained_tokens"),
        "effective_tokens": mean("effective_tokens"),
        "frac_zero_groups": mean("frac_zero_groups"),
        "policy_entropy_end": mean("entropy", record[-tenth:]),
    }
    timed = {
        "updates_per_s": len(record) / sum(seconds.values()),
        "tokens_per_s": total("trained_tokens") / sum(seconds.values()),
    }
    return [
        *(Measurement(name, value, n=len(record), phase="train") for name, value in counted.items()),
        *(Measurement(name, value, n=len(record), phase="train", source="clock") for name, value in timed.items()),
        *(Measurement("phase_seconds", s, n=len(record), phase=part, source="clock") for part, s in seconds.items()),
    ]
