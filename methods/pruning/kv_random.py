"""Random slots: the control that every method must beat.

Each layer, head and position of the text has a number of its own, made by mixing their indices with the seed, so the
kept set depends neither on the batch nor on the tokens. The last token of the prompt always stays.
"""

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import EvictionMethod, LayerView

MIX, PRIME = 0x45D9F3B, 2**31 - 1


def mixed(number: Tensor) -> Tensor:
    """Integers below 2^31 - 1 whose bits depend on all bits of ``number``."""
    for _ in range(3):
        number = (number ^ (number >> 16)) * MIX % PRIME
    return number


@method(
    id="kv_random",
    kind="pruning",
    title="Random slots",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    details={"randomness": "ours: a hash of seed, layer, head and position, the same for every prompt"},
)
class KvRandom(EvictionMethod):
    """Score: a hash."""

    seed: int = Field(0, ge=0, lt=2**20, description="which random set")

    def scores(self, view: LayerView) -> Tensor:
        """``[B, H, N]`` in [0, 1), infinite for the last token."""
        head = torch.arange(view.keys_BHND.shape[1], device=view.keys_BHND.device)[None, :, None]
        start = mixed(torch.tensor(self.seed * 1009 + view.layer + 1)).item()
        number = mixed(mixed(view.position_BHN + start) + head)
        last = view.position_BHN == view.seen_B[:, None, None] - 1
        return (number.double() / PRIME).masked_fill(last, torch.inf)
