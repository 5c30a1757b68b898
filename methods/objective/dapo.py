"""DAPO: four changes to GRPO, each of which can be switched off.

1. More room above: ratios are clipped to [1 - 0.2, 1 + 0.28]. 2. The loss is the mean over all tokens. 3. Groups whose
rewards are all equal are dropped, and new ones drawn until the batch is full or ``max_rounds`` rounds are used up.
4. With L_max = ``max_new_tokens`` and a cache of L_c = ``overlong_cache`` L_max tokens, a response of n tokens loses
0 for n <= L_max - L_c, then linearly more up to 1 at L_max. No penalty towards a reference.
"""

from harness.catalog import method
from harness.kinds.objective.dynamic import DynamicSampling


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
class Dapo(DynamicSampling):
    """The published recipe; the shared one has all of it."""
