"""Plain supervised fine-tuning: the mean cross-entropy of all tokens, through low-rank adapters."""

from harness.catalog import method
from harness.kinds.objective.finetune import FineTuningMethod


@method(
    id="sft_ce",
    kind="objective",
    title="Fine-tuning by cross-entropy, with low-rank adapters",
    paper="arXiv:2106.09685",
    guarantee="approximate",
    baseline="sft_ce",
    needs="minutes of training",
    details={
        "adapters": "ours: on the attention's four projections, merged after training; the paper adapts q and v",
        "schedule": "ours: ten steps of warm-up, then a cosine to 0",
    },
)
class SftCe(FineTuningMethod):
    """The yardstick of fine-tuning objectives."""
