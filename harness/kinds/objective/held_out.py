"""The probe ``held_out_rewards``: how often sampled answers to problems that nothing was trained on are right."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from harness.kinds.method import Measurement
from harness.kinds.objective.base import ObjectiveMethod
from harness.kinds.objective.rollouts import Sampling, sampled_batch
from harness.stats.intervals import Estimate, mean_interval
from harness.subjects.subject import Subject
from harness.toolkit.verifiable import VerifiableTask

PHASE = "held_out"
SEED = 7_001
PROBLEMS_AT_ONCE = 32
COLDEST = 1e-4
"""A temperature at which the best token is drawn."""


@dataclass
class HeldOutRewards:
    """pass@1, pass@k and greedy accuracy; ``problems`` and ``samples`` of each are the same for every objective."""

    method: ObjectiveMethod
    problems: int = 256
    samples: int = 8
    name: str = "held_out_rewards"

    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """The figures, with intervals over problems."""
        task = self.method.task(held_out=True)
        rng = random.Random(SEED)
        asked = [task.draw(rng) for _ in range(self.problems)]
        sampling = self.method.sampling(None)
        warm = self._rewards(subject, task, asked, replace(sampling, group_size=self.samples))
        cold = self._rewards(subject, task, asked, replace(sampling, group_size=1, temperature=COLDEST, temper=None))
        found = {
            "held_out_reward": [sum(row) / len(row) for row, _ in warm],
            "pass_at_1": [row.count(1.0) / len(row) for row, _ in warm],
            f"pass_at_{self.samples}": [float(1.0 in row) for row, _ in warm],
            "greedy_accuracy": [float(row[0] == 1) for row, _ in cold],
            "response_tokens": [length for _, length in warm],
        }
        return [_measurement(name, mean_interval(values)) for name, values in found.items()]

    def _rewards(
        self, subject: Subject, task: VerifiableTask, asked: Sequence[Any], sampling: Sampling
    ) -> list[tuple[list[float], float]]:
        """Of each problem, its responses' rewards and their mean length."""
        generator = torch.Generator(subject.device).manual_seed(SEED)
        found = []
        for start in range(0, len(asked), PROBLEMS_AT_ONCE):
            batch = sampled_batch(subject, task, asked[start : start + PROBLEMS_AT_ONCE], sampling, generator)
            reward_NG = batch.rewards_B.view(-1, sampling.group_size).tolist()
            length_N = batch.lengths_B.float().view(-1, sampling.group_size).mean(1).tolist()
            found += list(zip(reward_NG, length_N, strict=True))
        return found


def _measurement(name: str, found: Estimate) -> Measurement:
    return Measurement(name, found.value, found.low, found.high, found.n, phase=PHASE)
