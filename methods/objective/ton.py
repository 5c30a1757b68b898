"""TON: teach that a thought may be empty, then let outcome rewards decide when to think.

1. A response is a thought, a mark and an answer. Supervised steps on right written responses whose thought is left out
with probability q, the answer untouched. 2. GRPO with the task's reward, and no price for length. Right answers earn
the same with and without a thought, so short ones can win only by failing less and, where the loss is the mean over
responses of their token means, by the factor 1/n_i, which ``aggregation`` "token" takes away.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field

from harness.catalog import method
from harness.kinds.method import Measurement
from harness.kinds.objective import ObjectiveMethod, aggregate
from harness.kinds.objective.samplers import GroupSampler
from harness.kinds.objective.texts import Encoded
from harness.toolkit.trainer import adamw, optimizer_step

TRIES = 20
"""A right response is written within so many tries, or the last one is taken."""


def without_thought(response: str, mark: str, q: float, rng: random.Random) -> str:
    """The response from its last ``mark`` on with probability ``q``, else as it is; without a mark it stays."""
    skip, (_, found, answer) = rng.random() < q, response.rpartition(mark)
    return found + answer if skip and found else response


def is_skipped(response: str, mark: str) -> bool:
    """Whether the thought is empty: a mark with nothing but white space before it."""
    thought, found, _ = response.partition(mark)
    return bool(found) and not thought.strip()


@dataclass
class Thoughts:
    """The probe ``thoughts``: how often a subject thinks, how long, and what either earns."""

    method: Any
    name: str = "thoughts"

    def measure(self, subject: Any) -> Sequence[Measurement]:
        """Figures of one batch of sampled responses."""
        batch, _ = GroupSampler(self.method, subject, 0).sample(0, None)
        ends = set(subject.text_tokenizer().eos_ids)
        rows = zip(batch.response_ids_BT.tolist(), batch.lengths_B.tolist(), strict=True)
        texts = [subject.text_tokenizer().decode([i for i in ids[:n] if i not in ends]) for ids, n in rows]
        skip_B = torch.tensor([is_skipped(text, self.method.mark) for text in texts], device=batch.rewards_B.device)
        figures = {"skip_ratio": skip_B, "response_tokens": batch.lengths_B}
        figures |= {"skipped_reward": batch.rewards_B[skip_B], "thought_reward": batch.rewards_B[~skip_B]}
        return [
            Measurement(name, float(values.double().mean()), n=len(values), phase=self.name)
            for name, values in figures.items()
            if len(values)
        ]


@method(
    id="ton",
    kind="objective",
    title="TON: think or not, selective reasoning by thought dropout",
    paper="arXiv:2505.16854",
    guarantee="approximate",
    baseline="grpo",
    needs="supervised steps, then reinforcement learning",
    claims=[
        {
            "metric": "completion length",
            "value": -0.9,
            "against": "GRPO, at equal or better accuracy (up to)",
            "on": "3B and 7B vision-language models",
        },
    ],
    details={
        "q": "reference code: 0.5, drawn for each example",
        "mark": "ours: what separates thought and answer in the task's language, instead of tags",
        "empty thought": "ours: nothing before the mark; the reference code keeps two newlines between its tags",
        "rationales": "ours: the task writes them; the paper asks the base model for them",
        "format reward": "part of the task's reward, which is 0 for what does not parse",
        "supervised steps": "ours: 60 of 32 responses, loss on the response only",
        "everything else": "as grpo",
    },
)
class Ton(ObjectiveMethod):
    """With sft_steps=0 it is GRPO."""

    q: float = Field(0.5, ge=0, le=1, description="probability that a thought is left out")
    mark: str = Field("#", min_length=1, description="text between thought and answer")
    sft_steps: int = Field(60, ge=0, description="supervised steps before the first rollout")
    sft_batch: int = Field(32, ge=1, description="responses of each")
    sft_learning_rate: float = Field(3e-4, gt=0, description="of AdamW in these steps")
    aggregation: Literal["seq", "token"] = Field("seq", description="mean over responses, or over all tokens")

    def examples(self, rng):  # type: ignore[no-untyped-def]
        """Problems and responses of one supervised step."""
        task, problems, texts = self.task(), [], []
        for _ in range(self.sft_batch):
            problem = task.draw(rng)
            for _ in range(TRIES):
                text = task.written(problem, rng)
                if task.reward(problem, text) > 0:
                    break
            problems.append(problem)
            texts.append(without_thought(text, self.mark, self.q, rng))
        return problems, texts

    def warm_up(self, subject, seed):  # type: ignore[no-untyped-def]
        """Supervised steps on responses of which a part does not think."""
        optimizer, rng = adamw(subject.model, self.sft_learning_rate), random.Random(f"{seed}/thoughts")
        for _ in range(self.sft_steps):
            held = Encoded.of(subject, self.task(), *self.examples(rng))
            optimizer_step(optimizer, -held.logps(subject.model).sum() / held.mask_BT.sum())

    def probes(self):  # type: ignore[no-untyped-def]
        """How often a subject thinks, beside the kind's audit."""
        return (*super().probes(), Thoughts(self))

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """As in GRPO."""
        return aggregate(loss_BT, batch.response_mask_BT, self.aggregation)
