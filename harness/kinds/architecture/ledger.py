"""FLOPs of a training step: what an equal-compute comparison pays in."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def counted_flops(loss: Callable[[], Tensor]) -> float:
    """FLOPs of one loss and its gradients: two for each product of matrix products, convolutions and attention.

    Attention is counted over all pairs of places, masked or not, and alike on every device. For a transformer this is
    6 N + 12 L d T + 6 d V a token, N its weights without embeddings, L layers, d width, T tokens a row, V vocabulary.
    Element-wise work (norms, scans written out step by step) is not counted.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss().backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops())
