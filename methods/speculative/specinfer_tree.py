"""SpecInfer: a token tree of a fixed shape from a draft model, verified by recursive rejection.

The shape is an expansion vector (k_1, ..., k_D): every node at depth d - 1 draws k_d children from the draft's law p,
independently. At a node the draws are looked at one after the other: a draw x is accepted with min(1, q(x) / p(x));
refused, the target's law q becomes norm(max(q - p, 0)) for the next one, and where none is accepted a token is drawn
from the last q. What is emitted follows the target's law exactly. In greedy decoding the children are the draft's best
tokens, and the child that carries the target's token is accepted.
"""

from pydantic import Field, field_validator

from harness.catalog import method
from harness.kinds.speculative.drafts import DraftedMethod
from harness.kinds.speculative.iid_trees import IidDrafter
from harness.kinds.speculative.verify import recursive_rejection
from harness.kinds.speculative.widths import width_costs

PUBLISHED = (1, 1, 3, 1, 1, 1, 1, 1)


@method(
    id="specinfer_tree",
    kind="speculative",
    title="SpecInfer: token trees of a fixed shape",
    paper="arXiv:2305.09781",
    guarantee="distribution",
    baseline="ar",
    claims=[
        {
            "metric": "speedup_total",
            "value": 2.8,
            "against": "existing systems for serving language models",
            "on": "the abstract, distributed inference (1.5 to 2.8)",
        },
    ],
    details={
        "expansion": "1,1,3,1,1,1,1,1 from general knowledge of the paper; empty: the first levels of it that pay here",
        "equal draws": "one node, which draws its children once; in the verification at its parent each draw counts",
        "order of children": "that of drawing, which is random as draws are independent",
        "greedy": "the k best tokens of the draft's logits after the request's processors",
        "draft models": "one; merging the trees of several models is left out",
        "draft law": "the target's own processors, temperature, top-k and top-p act on the draft too",
        "draft": "a student distilled from the target by adaspec, as no small model shares the default's vocabulary",
    },
)
class SpecInferTree(DraftedMethod):
    """Trees of the shape ``expansion`` of the model ``draft``."""

    draft: str = Field("adaspec", description="layers:N, noised:SHARE, a method that makes drafts, or a model's name")
    expansion: tuple[int, ...] = Field((), description="children a node at each depth, as 1,1,3; empty: what pays")

    rule = staticmethod(recursive_rejection)

    @field_validator("expansion", mode="before")
    @classmethod
    def _read(cls, given):  # type: ignore[no-untyped-def]
        """A vector may be written as text, and one of a single level as a number."""
        if isinstance(given, int):
            return (given,)
        return tuple(part for part in given.split(",") if part.strip()) if isinstance(given, str) else given

    @field_validator("expansion")
    @classmethod
    def _positive(cls, expansion):  # type: ignore[no-untyped-def]
        """Every level has children."""
        if any(count < 1 for count in expansion):
            raise ValueError("every level needs at least one child a node, as in 1,1,3")
        return expansion

    @property
    def adaptive(self):  # type: ignore[no-untyped-def]
        """Only a vector that was asked for is held to."""
        return not self.expansion

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """The draft model, one tree ahead."""
        model, costs, vector = self.draft_model(subject, artifact), width_costs(subject), self.expansion or PUBLISHED
        return IidDrafter(model, costs, lambda depth, _: vector[depth], len(vector), self.adaptive, best=True)
