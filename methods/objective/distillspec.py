"""Plain distillation of a draft: forward KL to the target on all tokens of the target's own texts."""

from harness.catalog import method
from harness.kinds.objective.distil import DistillationMethod


@method(
    id="distillspec",
    kind="objective",
    title="Distillation of a draft on all tokens",
    paper="arXiv:2310.08461",
    guarantee="approximate",
    baseline="distillspec",
    needs="minutes of training",
    details={
        "loss": "forward KL over the full vocabulary, as AdaSPEC's reference code uses for this baseline",
        "texts": "own: the target's answers to generated requests, sampled at temperature 0.5",
        "student": "own: a Llama whose tied embeddings start from the target's on their leading components",
    },
)
class DistillSpec(DistillationMethod):
    """The yardstick of selective distillation."""
