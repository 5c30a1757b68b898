"""The trainer: sample, grade, read old log-probabilities, step, and record what happened."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.kinds.method import Measurement
from harness.kinds.objective.adapters import Adapted, with_adapters
from harness.kinds.objective.base import ObjectiveMethod
from harness.kinds.objective.batch import RolloutBatch
from harness.kinds.objective.frozen import Frozen, frozen_stages
from harness.kinds.objective.progress import Progress, Record
from harness.kinds.objective.rollouts import chosen_logps, forward_responses
from harness.kinds.objective.samplers import with_old_policy
from harness.kinds.objective.stages import clip_fractions, effective_tokens, masked, zero_groups
from harness.subjects.decode import synchronize
from harness.subjects.subject import Subject
from harness.toolkit.trainer import adamw, optimizer_step


def _adapted(model: Any, rank: int, seed: int) -> Adapted | None:
    return with_adapters(model, ("q_proj", "v_proj"), rank, 2 * rank, seed) if rank else None


@dataclass(frozen=True)
class Learner:
    """A policy in training, the critic beside it (None for most objectives), both as ``modules``, and the optimizer."""

    method: ObjectiveMethod
    model: Any
    critic: nn.Module | None
    modules: nn.ModuleList
    optimizer: torch.optim.Optimizer
    adapted: Adapted | None

    @classmethod
    def of(cls, method: ObjectiveMethod, subject: Subject, seed: int = 0) -> Learner:
        """A fresh learner over the subject's own model, which gets LoRA adapters where the method asks for them."""
        model, critic = subject.model, method.critic(subject)
        adapted = _adapted(model, method.lora_rank, seed)
        modules = nn.ModuleList([model] if critic is None else [model, critic])
        return cls(method, model, critic, modules, adamw(modules, method.learning_rate), adapted)

    def finish(self) -> dict[str, Tensor]:
        """The policy's weights on the CPU, adapters added to them; the learner is used up."""
        if self.adapted is not None:
            self.adapted.merge_and_unload()
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def update(self, batch: RolloutBatch, progress: float) -> dict[str, float]:
        """One optimizer step a minibatch; returns figures of the steps (means, token counts summed)."""
        frozen = frozen_stages(self.method, batch, progress)
        seen = [self._step(frozen.part(index_N)) for index_N in frozen.batch.minibatches(self.method.minibatches)]
        means = {name: sum(s[name] for s in seen) / len(seen) for name in seen[0]}
        sums = {name: sum(s[name] for s in seen) for name in ("effective_tokens", "trained_tokens")}
        return means | sums

    def _step(self, frozen: Frozen) -> dict[str, float]:
        method, part = self.method, frozen.batch
        logps_BTV, hidden_BTD = forward_responses(self.model, part, method.temperature, self.critic is not None)
        logp_BT = chosen_logps(logps_BTV, part.response_ids_BT)
        logp_BT.retain_grad()
        loss = method.loss(logp_BT, part, frozen.adv_BT, frozen.weight_BT)
        whole = loss if self.critic is None else loss + method.value_loss(self.critic(hidden_BTD), part)
        norm = optimizer_step(self.optimizer, whole)
        ratio_BT = method.ratio(logp_BT.detach(), part)
        low, high = clip_fractions(ratio_BT, frozen.adv_BT, part.response_mask_BT, *method.bounds(part))
        used_BT = torch.zeros_like(ratio_BT) if logp_BT.grad is None else logp_BT.grad
        return {
            "loss": float(loss.detach()),
            "grad_norm": float(norm),
            "clip_low": low,
            "clip_high": high,
            "effective_tokens": float(effective_tokens(used_BT)),
            "trained_tokens": float((used_BT != 0).sum()),
        }


def describe(batch: RolloutBatch) -> dict[str, float]:
    """Figures of a rollout batch, of its responses that are done (of all where none is) and of its new tokens.

    A mean length of a sign that does not occur is -1.
    """
    new_B, entropy = batch.new_BT.sum(1), float(masked(batch.entropy_BT, batch.new_BT).sum())
    over = batch.rows(batch.over_B.nonzero()[:, 0]) if bool(batch.over_B.any()) else batch
    length_B, right_B = over.lengths_B.float(), over.rewards_B > 0
    return {
        "responses": float(batch.size),
        "reward": float(over.rewards_B.mean()),
        "frac_zero_groups": float(zero_groups(over.rewards_B, over.group_ids_B).float().mean()),
        "length_positive": float(length_B[right_B].mean()) if bool(right_B.any()) else -1.0,
        "length_negative": float(length_B[~right_B].mean()) if bool((~right_B).any()) else -1.0,
        "finished": float(over.finished_B.float().mean()),
        "entropy": entropy / max(int(new_B.sum()), 1),
        "slot_utilisation": float(new_B.sum()) / max(int(new_B.max()) * len(new_B), 1),
    }


def train(
    method: ObjectiveMethod, subject: Subject, seed: int, folder: Path | None = None
) -> tuple[dict[str, Tensor], Record]:
    """Train the subject's own model for the method's budget; returns its weights (on the CPU) and the record.

    Problems and sampling noise of an update follow from the seed and its number alone, so that methods that are
    compared meet the same problems. What an interrupted training left in ``folder`` is taken up.
    """
    model = subject.model.eval()
    learner, sampler = Learner.of(method, subject, seed), method.sampler(subject, seed)
    progress = Progress(learner, sampler, folder)
    while progress.done < method.updates:
        stamps = [_now(subject)]
        batch, generated = sampler.sample(progress.done, progress.previous)
        stamps.append(_now(subject))
        batch = with_old_policy(batch, model, method, learner.critic)
        stamps.append(_now(subject))
        figures = learner.update(batch, progress.done / method.updates)
        stamps.append(_now(subject))
        names = ("seconds_sample", "seconds_old", "seconds_train")
        spans = {name: stamps[i + 1] - stamps[i] for i, name in enumerate(names)}
        progress.add(batch, describe(batch) | {"generated_tokens": float(generated)} | figures | spans)
    return learner.finish(), progress.record


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
        "slot_utilisation": mean("slot_utilisation"),
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
