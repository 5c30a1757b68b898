"""The probe ``skips``: how often a response has no thought before its answer, by the length of the problem."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from harness.kinds.method import Measurement
from harness.kinds.objective.base import ObjectiveMethod
from harness.kinds.objective.rollouts import sampled_batch
from harness.stats.intervals import mean_interval
from harness.subjects.subject import Subject

ANSWER_MARK = "#"
SEED = 7_002


@dataclass
class SkipsByLength:
    """Share of skipped thoughts, accuracy and length of the responses, for each number of digits of a sum."""

    method: ObjectiveMethod
    problems: int = 210
    samples: int = 4
    name: str = "skips"

    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """Means over problems with their intervals; the phase is the number of digits."""
        task, rng = self.method.task(held_out=True), random.Random(SEED)
        asked = [task.draw(rng) for _ in range(self.problems)]
        sampling = replace(self.method.sampling(None), group_size=self.samples)
        generator = torch.Generator(subject.device).manual_seed(SEED)
        batch = sampled_batch(subject, task, asked, sampling, generator)
        mark = subject.text_tokenizer().encode(ANSWER_MARK)[0]
        found = {
            "skipped_thoughts": (batch.response_ids_BT[:, 0] == mark).float(),
            "digit_accuracy": (batch.rewards_B == 1).float(),
            "response_tokens": batch.lengths_B.float(),
        }
        rows: dict[tuple[str, int], list[float]] = defaultdict(list)
        for name, value_B in found.items():
            for problem, mean in zip(asked, value_B.view(-1, self.samples).mean(1).tolist(), strict=True):
                rows[name, len(problem)].append(mean)
        return [self._measurement(name, digits, values) for (name, digits), values in sorted(rows.items())]

    @staticmethod
    def _measurement(name: str, digits: int, values: Sequence[float]) -> Measurement:
        found = mean_interval(values)
        return Measurement(name, found.value, found.low, found.high, found.n, phase=f"{digits} digits")
