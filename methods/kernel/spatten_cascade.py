"""SpAtten's token pruning as kernels: sum up the attention each token received, and keep the best for later layers.

s_j += sum_h sum_i A_h[i, j] over the layers done so far; before layer l the ceil(keep_l N) tokens with the highest s
among the survivors stay, the last one always, and what left stays away from all later layers. The importance is made
from queries, keys and the log-sum-exp that the attention left, without its matrix.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.kernel import KernelMethod
from harness.kinds.kernel.cascade_workloads import cascade_workloads
from harness.kinds.kernel.importance import importance, keep


def keep_schedule(layers: int, dense: float, last: float) -> list[float]:
    """Part of the tokens each layer reads: all in the first share of layers, then falling linearly to ``last``."""
    first = math.ceil(dense * layers)
    falling = max(1, layers - first)
    return [1.0 if n < first else 1 - (1 - last) * (n - first + 1) / falling for n in range(layers)]


def survivors(score_N: Tensor, place_N: Tensor, share: float, tokens: int) -> Tensor:
    """Places, ascending, of the ``ceil(share * tokens)`` survivors with the highest scores and of the last token."""
    count = min(len(place_N), max(1, math.ceil(share * tokens - 1e-9)))
    protected_N = score_N.clone()
    protected_N[-1] = torch.inf
    return place_N[keep(protected_N[None], torch.tensor([count], device=place_N.device))[0]]


@method(
    id="spatten_cascade",
    kind="kernel",
    title="SpAtten: cascade token pruning by accumulated attention",
    paper="arXiv:2012.09852",
    guarantee="approximate",
    baseline="spatten_cascade",
    identity={"last": 1.0},
    details={
        "claims": "none here: the paper's speed-ups belong to its hardware",
        "importance": "paper: probabilities summed over heads, queries and layers",
        "schedule": "reconstruction, unverified: 15 % of the layers dense, then a linear fall",
        "last token": "always survives",
        "ties": "the earlier token is kept",
        "top-k": "ours: by rank, counting the tokens that beat each; the paper has a quick-select engine",
    },
)
class SpattenCascade(KernelMethod):
    """Importance against the whole attention matrix, and a stack of layers with and without the cascade."""

    dense: float = Field(0.15, ge=0, le=1, description="share of first layers that keep all tokens")
    last: float = Field(0.25, gt=0, le=1, description="part of the tokens that the last layer reads")

    sizes = ({"tokens": 1024, "layers": 8}, {"tokens": 4096, "layers": 4})
    check_sizes = ({"tokens": 37, "layers": 4}, {"tokens": 5, "layers": 2}, {"tokens": 1, "layers": 1})

    def workloads_at(self, subject, size: Mapping[str, int]) -> Iterator:  # type: ignore[no-untyped-def,type-arg]
        """Both, at one length."""
        schedule = keep_schedule(size["layers"], self.dense, self.last)
        yield from cascade_workloads(subject, size, schedule, importance, survivors)
