"""Key norm: tokens whose keys are short get much attention, so the slots with the shortest keys stay.

score_j = -|k_j|_2 in each key/value head, once after the prompt. A rotation leaves a key's length as it is, so cached
keys serve as they lie; neither queries nor attention are read.
"""

from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import EvictionMethod, LayerView


@method(
    id="kv_knorm",
    kind="pruning",
    title="Key norm: short keys stay",
    paper="arXiv:2406.11430",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    details={
        "layers": "ours: every layer is pruned; the paper spares the first two",
        "window": "reconstruction: nothing is kept for being recent",
    },
)
class KvKnorm(EvictionMethod):
    """Score: minus the key's length."""

    def scores(self, view: LayerView) -> Tensor:
        """``[B, H, N]``."""
        return -view.keys_BHND.float().norm(dim=-1)
