"""Keep the most recent tokens of the prompt.

score_j = position of j, so of n prompt tokens the last max(1, floor(keep_ratio * n)) stay, in every layer and head.
"""

from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import LayerView, PruningMethod


@method(
    id="my_method",
    kind="pruning",
    title="My method: the most recent tokens",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    details={"keep_ratio": "ours: the part of the prompt that stays"},
)
class MyMethod(PruningMethod):
    """Score: the position in the text."""

    keep_ratio: float = Field(0.5, gt=0, le=1, description="part of the prompt's tokens kept")

    def scores(self, view: LayerView) -> Tensor:
        """Position of each slot, ``[B, H, N]``."""
        return view.position_BHN.float().expand(-1, view.keys_BHND.shape[1], -1)
