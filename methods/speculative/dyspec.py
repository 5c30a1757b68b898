"""DySpec: the draft's own probability is taken for the chance of acceptance, and the tree grows where that is highest.

A slot is a place for one more child: the node, the law R left after its elder siblings, and the chance v that
verification comes to it. A child y drawn from R leaves a sibling slot of value v (1 - R[y]) and opens a child slot of
value v R[y]. ``threshold`` form: level by level, siblings are drawn while v exceeds a threshold, then the whole level
goes through the draft at once. ``heap`` form: always the slot of highest value, one draft forward a node. Whether a
slot is drawn is settled before the draw: dropping drawn tokens would bend the law of the output.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.speculative import DraftTree
from harness.kinds.speculative.drafts import DraftedMethod, DraftModel, ModelDrafter
from harness.kinds.speculative.growing import GrowingTree
from harness.kinds.speculative.slots import grow_by_heap, grow_by_threshold
from harness.kinds.speculative.verify import recursive_rejection
from harness.kinds.speculative.widths import WidthCosts, width_costs


class SlotDrafter(ModelDrafter):
    """Grows by one of the two forms; nothing is learnt beyond the draft's own probabilities."""

    def __init__(self, model: DraftModel, form: str, threshold: float, most: int, max_depth: int) -> None:
        super().__init__(model)
        self.form, self.threshold, self.most, self.max_depth = form, threshold, most, max_depth

    def propose(self, history: Sequence[int], room: int) -> DraftTree:
        """A tree of at most ``most`` drafted tokens."""
        tree = GrowingTree(self.model, history, self.sampler, self.row)
        depth = min(self.max_depth, self.model.reach(history, room))
        if depth > 0 and self.form == "heap":
            grow_by_heap(tree, self.most, depth)
        elif depth > 0:
            grow_by_threshold(tree, self.threshold, self.most, depth)
        return tree.finished()


def paying_threshold(costs: WidthCosts, most: int) -> float:
    """A token pays where its chance exceeds what one more costs the target, relative to a plain step."""
    return (costs(most + 1) - costs(1)) / most


@method(
    id="dyspec",
    kind="speculative",
    title="DySpec: Faster Speculative Decoding with Dynamic Token Tree Structure",
    paper="arXiv:2410.11744",
    guarantee="distribution",
    baseline="ar",
    claims=[
        {
            "metric": "speedup_total",
            "value": 9.4,
            "against": "autoregressive decoding",
            "on": "latency of Llama2-70B at low temperature, the paper's abstract",
        }
    ],
    details={
        "body": "the paper's body was not at hand: steps from general knowledge of it, exactness derived and tested",
        "threshold": "reconstruction: 0 is the slope of the measured cost of a width, the paper gives none",
        "num_nodes": "reconstruction: 24 at most; a number that is given is held to, with a threshold of 1 over it",
        "draft law": "the target's own temperature and processors, as for all drafts here",
        "greedy": "deterministic children by the draft's probability, matched",
        "draft": "a student distilled from the target by adaspec",
    },
)
class DySpec(DraftedMethod):
    """A tree of up to ``num_nodes`` drafted tokens of the model ``draft``."""

    draft: str = Field("adaspec", description="layers:N, noised:SHARE, a method that makes drafts, or a model's name")
    form: Literal["threshold", "heap"] = Field("threshold", description="level by level, or node by node")
    num_nodes: int = Field(0, ge=0, description="most drafted tokens a step; 0: as many as pay, none where none do")
    max_depth: int = Field(6, ge=1, description="deepest tree")

    rule = staticmethod(recursive_rejection)
    width_field = "num_nodes"

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """The draft model and its threshold."""
        most = self.num_nodes or 24
        threshold = 1 / most if self.num_nodes else paying_threshold(width_costs(subject).after(0), most)
        return SlotDrafter(self.draft_model(subject, artifact), self.form, threshold, most, self.max_depth)
