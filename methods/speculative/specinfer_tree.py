"""SpecInfer's tree: every node at depth d has k_d children, drawn independently from the draft model.

The expansion vector <k_1, ..., k_D> fixes the shape. Children are verified one after the other, each against what the
refused ones have left of the target's law (recursive rejection); equal draws are forwarded once and count as often as
they were drawn. A greedy request has the k_d likeliest children.
"""

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Any

from pydantic import Field, field_validator

from harness.catalog import method
from harness.kinds.speculative import DraftTree
from harness.kinds.speculative.drafts import DepthDrafter, DraftedMethod, DraftModel
from harness.kinds.speculative.growing import GrowingTree
from harness.kinds.speculative.verify import recursive_rejection
from harness.kinds.speculative.written import written_numbers

PUBLISHED = (1, 1, 3, 1, 1, 1, 1, 1)


class ExpansionDrafter(DepthDrafter):
    """Levels of the expansion vector; ``adaptive``: as many of them as pay."""

    def __init__(self, model: DraftModel, expansion: Sequence[int], adaptive: bool) -> None:
        super().__init__(model)
        self.expansion, self.adaptive = expansion, adaptive

    def propose(self, history: Sequence[int], room: int) -> DraftTree:
        """One draft forward a level."""
        sizes = list(accumulate(self.expansion, mul))
        levels = self.acceptance.levels(sizes, self.costs, self.model.token_price) if self.adaptive else len(sizes)
        tree = GrowingTree(self.model, history, self.sampler, self.row)
        frontier = [0]
        for level in range(min(levels, self.model.reach(history, room))):
            if level:
                tree.grow(frontier)
            frontier = [child for node in frontier for child in tree.drawn(node, self.expansion[level])]
        return tree.finished()


@method(
    id="specinfer_tree",
    kind="speculative",
    title="SpecInfer: tree-based speculative inference with a fixed expansion",
    paper="arXiv:2305.09781",
    guarantee="distribution",
    baseline="ar",
    claims=[
        {
            "metric": "speedup_total",
            "value": 2.8,
            "against": "incremental decoding of other systems",
            "on": "distributed inference, the paper's abstract (1.5 to 2.8)",
        }
    ],
    details={
        "expansion": "paper: <1,1,3,1,1,1,1,1>, from general knowledge of it; empty, the default: its levels that pay",
        "children": "independent draws, recursive rejection with replacement in the order of drawing, which is random",
        "greedy": "the likeliest children, matched",
        "draft": "a student distilled from the target by adaspec",
    },
)
class SpecInferTree(DraftedMethod):
    """The tree ``expansion`` of the model ``draft``."""

    draft: str = Field("adaspec", description="layers:N, noised:SHARE, a method that makes drafts, or a model's name")
    expansion: str = Field("", description="children by depth, as 2,2,1; empty: the paper's, as far as it pays")

    rule = staticmethod(recursive_rejection)
    width_field = "expansion"

    @field_validator("expansion", mode="before")
    @classmethod
    def _numbers(cls, given: Any) -> str:
        return written_numbers(given, "children by depth as 2,2,1", least=1)

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """The draft model, one tree ahead."""
        expansion = tuple(map(int, self.expansion.split(","))) if self.expansion else PUBLISHED
        return ExpansionDrafter(self.draft_model(subject, artifact), expansion, self.adaptive)
