"""Sequoia: the tree shape with most expected tokens for its cost, given how often the b-th drawn child is accepted.

With P[b] that chance, T(m, l), the expected tokens of the best tree of m nodes and depth at most l, is
1 + max over ways to share m - 1 nodes among children of sum_b P[b] T(m_b, l - 1): a dynamic program. Children are
drawn without replacement and verified by recursive rejection. Size and depth are those with the least cost a token.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from harness.catalog import method
from harness.kinds.speculative import DraftTree, Step
from harness.kinds.speculative.drafts import DraftedMethod, DraftModel, ModelDrafter
from harness.kinds.speculative.growing import GrowingTree, draw_without_replacement
from harness.kinds.speculative.pace import DecayedRates
from harness.kinds.speculative.tree_program import Chances, Shape, plan
from harness.kinds.speculative.verify import recursive_rejection

PRIOR: Chances = (0.5, 0.15, 0.08, 0.05)
PRIOR_WEIGHT, DECAY, REPLAN = 4.0, 0.98, 8


class ShapedDrafter(ModelDrafter):
    """Drafts the planned shape, level by level, and plans again from what was accepted."""

    def __init__(self, model: DraftModel, sizes: Sequence[int], max_depth: int) -> None:
        super().__init__(model)
        self.sizes, self.max_depth = sizes, max_depth
        self.rates = DecayedRates(PRIOR, PRIOR_WEIGHT, DECAY)
        self.steps = 0
        self.shape: Shape = ()

    def start(self, prompt: Sequence[int], sampler: Any, row: int) -> None:
        """A new text; the decoder has said by now what widths cost."""
        super().start(prompt, sampler, row)
        self.shape = self._planned()

    def _planned(self) -> Shape:
        # Rounded, so that equal plans are found again instead of made.
        chances = tuple(round(share, 2) for share in self.rates.shares())
        return plan(chances, self.costs, self.model.token_price, self.sizes, self.max_depth)

    def propose(self, history: Sequence[int], room: int) -> DraftTree:
        """One draft forward a level."""
        deepest = self.model.reach(history, room)
        tree = GrowingTree(self.model, history, self.sampler, self.row)
        level = [(0, self.shape)] if deepest > 0 else []
        for depth in range(deepest):
            parents = [(node, shape) for node, shape in level if shape]
            if depth:
                tree.grow([node for node, _ in parents])
            level = [
                pair
                for node, shape in parents
                for pair in zip(draw_without_replacement(tree, node, len(shape)), shape, strict=False)
            ]
        return tree.finished()

    def observe(self, step: Step) -> None:
        """Keep what was accepted, and count which child of each reached node it was."""
        super().observe(step)
        accepted = set(step.path)
        for node in step.path:
            for rank, child in enumerate(step.tree.children[node]):
                self.rates.count(rank, child in accepted)
        self.steps += len(step.tree.tokens) > 1
        if self.steps == REPLAN:
            self.steps, self.shape = 0, self._planned()

    def snapshot(self) -> tuple[Any, int]:
        """What was accepted of late; the plan follows from it when a text starts."""
        return self.rates.snapshot(), self.steps

    def restore(self, state: tuple[Any, int]) -> None:
        """Go back to a snapshot."""
        rates, self.steps = state
        self.rates.restore(rates)


@method(
    id="sequoia_tree",
    kind="speculative",
    title="Sequoia: Scalable, Robust, and Hardware-aware Speculative Decoding",
    paper="arXiv:2402.12374",
    guarantee="distribution",
    baseline="ar",
    claims=[
        {
            "metric": "speedup_total",
            "value": 4.04,
            "against": "autoregressive decoding",
            "on": "Llama2-7B on an A100, the paper's abstract",
        }
    ],
    details={
        "P[b]": "own: counted while decoding, with a stated prior; the paper profiles it before",
        "num_nodes": "0: size and depth with the least measured cost for an expected token, up to `most`",
        "children": "paper: drawn without replacement, recursive rejection; the likeliest ones of a greedy request",
        "draft": "a student distilled from the target by adaspec",
    },
)
class SequoiaTree(DraftedMethod):
    """The best tree of ``num_nodes`` drafted tokens of the model ``draft``."""

    draft: str = Field("adaspec", description="layers:N, noised:SHARE, a method that makes drafts, or a model's name")
    num_nodes: int = Field(0, ge=0, description="drafted tokens a step; 0: as many as pay, none where none do")
    most: int = Field(24, ge=1, description="largest tree where the size is chosen")
    max_depth: int = Field(6, ge=1, description="deepest tree")

    rule = staticmethod(recursive_rejection)
    width_field = "num_nodes"

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """The draft model and the first plan."""
        sizes = [self.num_nodes + 1] if self.num_nodes else range(2, self.most + 2)
        return ShapedDrafter(self.draft_model(subject, artifact), sizes, self.max_depth)
