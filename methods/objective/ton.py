"""TON, think or not: empty thoughts are made a legal answer by supervised training, then reinforcement learns to skip.

Stage 1: of each right response the thought is blanked with probability ``q``, its answer stays; the model imitates
both forms. Stage 2: GRPO with the task's reward alone. There is no reward for being short: a skip that is right earns
as much as a thought that is, so what decides is which is right more often, and how much the aggregation makes of
short responses.
"""

import random
from typing import Any, Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod, aggregate
from harness.kinds.objective.balance import balanced
from harness.kinds.objective.skipping import ANSWER_MARK, SkipsByLength
from harness.kinds.objective.texts import Encoded
from harness.toolkit.trainer import adamw, optimizer_step
from harness.toolkit.verifiable import Problems, VerifiableTask

TRIES = 20
"""A right response is written within so many tries, or the last one is taken."""


def blanked(response: str) -> str:
    """The response without its thought: all before the answer's mark. One without a thought stays as it is."""
    return response[response.rindex(ANSWER_MARK) :] if ANSWER_MARK in response else response


def draw_example(task: VerifiableTask, q: float, rng: random.Random) -> tuple[Any, str]:
    """A problem and a right response, of which the thought is left out with probability ``q``."""
    problem = task.draw(rng)
    for _ in range(TRIES):
        response = task.written(problem, rng)
        if task.reward(problem, response) == 1:
            break
    return problem, blanked(response) if rng.random() < q else response


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
        "q": "reference code: 0.5, drawn for each example",
        "thought": "ours: the running sums before the answer's mark stand for the text between think tags",
        "format reward": "ours: part of the task's grade, which accepts empty thoughts; the paper adds 1 for it",
        "learning rate": "ours, for a tiny model; reference code: 1e-6 and 1.0 as temperature",
        "aggregation": "seq as in the paper's GRPO; token and balanced tell how much of the shortening its 1/n makes",
        "rationales": "written by the task; the paper lets the base model write them where there are none",
    },
)
class Ton(ObjectiveMethod):
    """GRPO after thought dropout. Its problems are sums of two to six digits, of which the short need no thought."""

    problems: Problems = Field("chain_sum_mixed", description="what is asked; responses need a mark before the answer")
    q: float = Field(0.5, ge=0, le=1, description="probability that a thought is left out")
    sft_steps: int = Field(60, ge=0, description="supervised steps before the first rollout")
    sft_batch: int = Field(32, ge=1, description="responses of each")
    sft_learning_rate: float = Field(3e-4, gt=0, description="of AdamW in these steps")
    aggregation: Literal["seq", "token", "balanced"] = Field("seq", description="how token losses are put together")

    def warm_up(self, subject, seed):  # type: ignore[no-untyped-def]
        """Supervised steps, the loss being the mean over the responses' tokens."""
        optimizer, rng = adamw(subject.model, self.sft_learning_rate), random.Random(f"thoughts:{seed}")
        for _ in range(self.sft_steps):
            examples = [draw_example(self.task(), self.q, rng) for _ in range(self.sft_batch)]
            problems, responses = map(list, zip(*examples, strict=True))
            held = Encoded.of(subject, self.task(), problems, responses)
            optimizer_step(optimizer, -held.logps(subject.model).sum() / held.mask_BT.sum())

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """Mean of means, over all tokens, or balanced between right and wrong responses."""
        if self.aggregation == "balanced":
            return balanced(loss_BT, batch.response_mask_BT, adv_BT[:, 0], batch.group_ids_B)
        return aggregate(loss_BT, batch.response_mask_BT, self.aggregation)

    def probes(self):  # type: ignore[no-untyped-def]
        """Those of the kind, and how often a thought is skipped, by the number of digits."""
        return (*super().probes(), SkipsByLength(self))
