"""TON, think or not: empty thoughts are made a legal answer by supervised training, then reinforcement learns to skip.

Stage 1: of each example the thought is blanked with probability ``blank``, its answer stays; the model imitates both
forms. Stage 2: GRPO with the task's reward alone. There is no reward for being short: a skip earns as much as a thought
that is right, so what decides is which of them is right more often, and the aggregation's weight of short responses.
"""

import random
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod, aggregate
from harness.kinds.objective.balance import balanced
from harness.kinds.objective.copies import training_copy
from harness.kinds.objective.imitate import Example, imitate
from harness.kinds.objective.skipping import ANSWER_MARK, SkipsByLength
from harness.toolkit.verifiable import Problems, VerifiableTask


def blanked(response: str) -> str:
    """The response without its thought: all before the answer's mark. One without a thought stays as it is."""
    return response[response.rindex(ANSWER_MARK) :] if ANSWER_MARK in response else response


def example_of(task: VerifiableTask, blank: float) -> Callable[[random.Random], Example]:
    """Draws examples, each blanked with probability ``blank`` on its own."""

    def draw(rng: random.Random) -> Example:
        problem: Any = task.draw(rng)
        response = task.written(problem, rng)
        return problem, blanked(response) if rng.random() < blank else response

    return draw


@method(
    id="ton",
    kind="objective",
    title="Think or Not? Selective reasoning by thought dropout and GRPO",
    paper="arXiv:2505.16854",
    guarantee="approximate",
    baseline="grpo",
    needs="supervised training, then reinforcement learning",
    claims=[
        {
            "metric": "completion length",
            "value": 0.1,
            "against": "1 of vanilla GRPO (down by up to 90 %, abstract)",
            "on": "vision-language models of 3B and 7B, tasks of different difficulty",
        }
    ],
    details={
        "blank": "reference code: 0.5",
        "thought": "ours: the running sums before the answer's mark stand for the text between think tags",
        "format reward": "ours: part of the task's grade, which accepts empty thoughts; the paper adds 1 for it",
        "learning rate": "ours, for a tiny model; reference code: 1e-6 and 1.0 as temperature",
        "aggregation": "seq as in the paper's GRPO; token and balanced tell how much of the shortening its 1/n makes",
        "rationales": "written by the task; the paper lets the base model write them where there are none",
    },
)
class Ton(ObjectiveMethod):
    """GRPO after thought dropout. Its problems are sums of two to eight digits, of which the short need no thought."""

    problems: Problems = Field("chain_sum_mixed", description="what is asked; responses need a mark before the answer")
    blank: float = Field(0.5, ge=0, le=1, description="part of the examples whose thought is left out")
    sft_steps: int = Field(150, ge=0, description="steps of supervised training")
    sft_batch: int = Field(64, ge=1, description="examples of a step")
    sft_learning_rate: float = Field(1e-3, gt=0, description="of the supervised training")
    aggregation: Literal["seq", "token", "balanced"] = Field("seq", description="how token losses are put together")

    def opening(self, subject, ctx):  # type: ignore[no-untyped-def]
        """A copy that knows both forms."""
        copied, task = training_copy(subject), self.task()
        example = example_of(task, self.blank)
        imitate(copied, task, example, self.sft_steps, self.sft_batch, self.sft_learning_rate, ctx.seed)
        return copied

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """Mean of means, over all tokens, or balanced between right and wrong responses."""
        if self.aggregation == "balanced":
            return balanced(loss_BT, batch.response_mask_BT, adv_BT[:, 0], batch.group_ids_B)
        return aggregate(loss_BT, batch.response_mask_BT, self.aggregation)

    def probes(self):  # type: ignore[no-untyped-def]
        """Those of the kind, and how often a thought is skipped, by the number of digits."""
        return (*super().probes(), SkipsByLength(self))
