"""Generative recommendation with codes: an item is four codes, told one after the other by beam search.

Codes: three levels of k-means on what the levels before left of an item's feature, then a number among equals. A causal
model reads the codes of the items that a user took; loss = mean cross-entropy of the next item's four codes. A list
takes four forwards of ``beam`` rows each; a code that no item has is never followed.
"""

from pydantic import Field

from harness.catalog import method
from harness.kinds.architecture import RecommenderMethod
from harness.kinds.architecture.blocks import Blocks
from harness.kinds.architecture.item_codes import CodeRecommender, residual_codes


@method(
    id="item_codes",
    kind="architecture",
    title="Recommender Systems with Generative Retrieval (TIGER)",
    paper="arXiv:2305.05065",
    guarantee="approximate",
    baseline="single_id",
    needs="minutes of training",
    details={
        "codes": "reconstruction: residual k-means; the paper trains a residual-quantized auto-encoder",
        "model": "ours: decoder only, of Llama layers; the paper has an encoder and a decoder",
        "forwards": "ours: the history is read again for each code; a cache would save work, not forwards",
        "data": "as single_id",
    },
)
class ItemCodes(RecommenderMethod):
    """Autoregressive identifiers of four codes."""

    codes: int = Field(16, ge=2, le=32, description="codes of each level")
    beam: int = Field(10, ge=1, description="prefixes that are followed")

    def build(self, data):  # type: ignore[no-untyped-def]
        """The model with the items' codes."""
        codes_I4 = residual_codes(data.features_IF.cpu(), self.codes)
        model = CodeRecommender(codes_I4, self.codes, Blocks(self.hidden, self.layers, self.heads))
        return model.to(data.features_IF.device)

    def loss(self, model, data, history_BL, target_B):  # type: ignore[no-untyped-def]
        """Cross-entropy of the target's codes."""
        return model.loss(history_BL, target_B)

    def scores(self, model, history_BL):  # type: ignore[no-untyped-def]
        """Log-probabilities of the items at the end of the beam."""
        return model.scores(history_BL, self.beam)
