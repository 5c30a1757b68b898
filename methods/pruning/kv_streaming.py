"""StreamingLLM: the first tokens are attention sinks, the last ones are the context; all between are dropped.

Kept of n prompt tokens: K = max(1, floor(keep_ratio * n)); slots {0 .. sinks-1} and the last K - sinks, held so while
decoding. With K <= sinks the sinks come first.
"""

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import EvictionMethod, LayerView


@method(
    id="kv_streaming",
    kind="pruning",
    title="StreamingLLM: sinks and recent tokens",
    paper="arXiv:2309.17453",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    claims=[
        {
            "metric": "speedup_decode",
            "value": 22.2,
            "against": "sliding window with recomputation",
            "on": "up to 4 million tokens, Llama-2 (abstract: 'up to 22.2x')",
        }
    ],
    details={
        "num_sinks": "paper",
        "positions": "absolute, as kvpress; the original re-assigns positions by cache rank, which is not offered",
        "keep_ratio": "reconstruction: the paper gives a cache size in tokens",
        "keep_ratio=1": "reconstruction: no budget at all, also while decoding",
    },
)
class KvStreaming(EvictionMethod):
    """Score: infinite for the sinks, else the position."""

    while_decoding = True
    num_sinks: int = Field(4, ge=0, description="first tokens that always stay")

    def scores(self, view: LayerView) -> Tensor:
        """Position in the text, with the sinks above all."""
        position = view.position_BHN.float()
        score = position.masked_fill(view.position_BHN < self.num_sinks, torch.inf)
        return score.expand(-1, view.keys_BHND.shape[1], -1)
