"""DAPO: four changes to GRPO, each of which can be switched off.

1. More room above: ratios are clipped to [1 - 0.2, 1 + 0.28]. 2. The loss is the mean over all tokens. 3. Groups whose
rewards are all equal are dropped, and new ones drawn until the batch is full or ``max_rounds`` rounds are used up.
4. With L_max = ``max_new_tokens`` and a cache of L_c = ``overlong_cache`` L_max tokens, a response of n tokens loses
0 for n <= L_max - L_c, then linearly more up to 1 at L_max. No penalty towards a reference.
"""

from pydantic import Field

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod, aggregate
from harness.kinds.objective.samplers import GroupSampler, LiveGroups
from harness.kinds.objective.stages import overlong_penalty


@method(
    id="dapo",
    kind="objective",
    title="DAPO: decoupled clip and dynamic sampling",
    paper="arXiv:2503.14476",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    details={
        "clip": "paper: 0.2 below, 0.28 above",
        "overlong_cache": "paper: 4096 of 20480 tokens, here the same share of max_new_tokens, rounded",
        "dynamic sampling": "paper: by the task's rewards, without the penalty; dropped tokens count as generated",
        "max_rounds": "ours: 3; then the batch is what there is, and if no group is live the first round",
        "everything else": "as grpo with token aggregation",
    },
)
class Dapo(ObjectiveMethod):
    """With clip_high=0.2, max_rounds=1 and overlong_cache=0 it is GRPO with token aggregation."""

    clip_high: float = Field(0.28, gt=0, description="ratios above 1 plus this are clipped")
    max_rounds: int = Field(3, ge=1, description="rounds of sampling for one update; 1 drops groups but draws no more")
    overlong_cache: float = Field(0.2, ge=0, le=1, description="last part of the allowed length that is penalised")

    @property
    def centred(self):  # type: ignore[no-untyped-def,override]
        """Lengths teach too, unless the penalty is off."""
        return self.overlong_cache == 0

    def sampler(self, subject, seed):  # type: ignore[no-untyped-def]
        """Live groups only."""
        return LiveGroups(GroupSampler(self, subject, seed), self.max_rounds)

    def rewards(self, batch):  # type: ignore[no-untyped-def]
        """The task's rewards less the penalty for length."""
        cache = round(self.overlong_cache * self.max_new_tokens)
        return batch.rewards_B + overlong_penalty(batch.lengths_B, self.max_new_tokens, cache)

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """Mean over all tokens."""
        return aggregate(loss_BT, batch.response_mask_BT, "token")
