"""Speculative sampling: a small model drafts a chain, the target verifies it in one forward.

Token i of the chain is drawn from the draft's law p_i and accepted with min(1, q_i(x_i) / p_i(x_i)), q_i being the
target's law there. At the first refusal a token of norm(max(q_i - p_i, 0)) is emitted, after a chain without one a
token of q. What is emitted follows the target's law exactly; greedy decoding gives the greedy text.
"""

from pydantic import Field

from harness.catalog import method
from harness.kinds.speculative.chains import ChainDrafter
from harness.kinds.speculative.drafts import DraftedMethod
from harness.kinds.speculative.verify import recursive_rejection


@method(
    id="spec_sampling",
    kind="speculative",
    title="Speculative sampling with a draft model",
    paper="arXiv:2211.17192, arXiv:2302.01318",
    guarantee="distribution",
    baseline="ar",
    claims=[
        {
            "metric": "speedup_total",
            "value": 2.5,
            "against": "autoregressive decoding",
            "on": "Chinchilla 70B with a 4B draft, XSum and HumanEval (2 to 2.5)",
        },
        {
            "metric": "speedup_total",
            "value": 1.79,
            "against": "autoregressive decoding",
            "on": "Spec-Bench, Vicuna-7B, RTX 3090, by the authors of Spec-Bench",
        },
    ],
    details={
        "draft": "a student distilled from the target by adaspec, as no small model shares the default's vocabulary",
        "num_draft": "0: the length with most expected tokens for its cost on this machine; the papers fix 4 to 7",
        "draft law": "the target's own processors, temperature, top-k and top-p act on the draft too",
    },
)
class SpecSampling(DraftedMethod):
    """A chain of ``num_draft`` tokens of the model ``draft``."""

    draft: str = Field("adaspec", description="layers:N, noised:SHARE, a method that makes drafts, or a model's name")
    num_draft: int = Field(0, ge=0, description="drafted tokens a step; 0: as many as pay, none where none do")
    longest: int = Field(8, ge=1, description="longest chain where the length is chosen")

    rule = staticmethod(recursive_rejection)
    width_field = "num_draft"

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """The draft model, one chain ahead."""
        return ChainDrafter(self.draft_model(subject, artifact), self.num_draft, self.longest)
