"""Sequential recommendation with one vector an item: what sets and codes of items are held against.

A causal model reads the vectors of the items that a user took, a learnt query at the end is compared with every item's
vector: s(i) = <o, e_i>. Loss = cross-entropy over all items that training knows.
"""

from harness.catalog import method
from harness.kinds.architecture import RecommenderMethod
from harness.kinds.architecture.blocks import Blocks
from harness.kinds.architecture.item_sets import SetRecommender


@method(
    id="single_id",
    kind="architecture",
    title="Self-Attentive Sequential Recommendation",
    paper="arXiv:1808.09781",
    guarantee="approximate",
    baseline="single_id",
    needs="minutes of training",
    details={
        "data": "ours: synthetic interactions with a tenth of cold items, which no training sees",
        "query": "ours: a learnt vector after the history; the paper reads the state of the last item",
        "layers": "ours: those of a Llama",
        "loss": "ours: the full softmax; the paper draws one item that was not taken",
    },
)
class SingleId(RecommenderMethod):
    """A table of items and nothing else, so a cold item is only known by a vector that nothing has trained."""

    def build(self, data):  # type: ignore[no-untyped-def]
        """The model with a table of items."""
        blocks = Blocks(self.hidden, self.layers, self.heads)
        return SetRecommender(data.features_IF, 0, blocks, None).to(data.features_IF.device)

    def loss(self, model, data, history_BL, target_B):  # type: ignore[no-untyped-def]
        """Cross-entropy over warm items."""
        return model.loss(history_BL, target_B, data.warm_I, 0.0)

    def scores(self, model, history_BL):  # type: ignore[no-untyped-def]
        """One forward."""
        return model.scores(history_BL)
