"""How far the heads of a layer look in a prompt: measures that tell retrieval heads from local ones."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.kinds.pruning.base import by_query_head, window_attention
from harness.subjects.views import LayerView


def echo_mass(view: LayerView, span: int) -> Tensor:
    """Attention of the last ``span`` queries to the first ``span`` tokens, by query head, ``[H]``."""
    return window_attention(by_query_head(view), span)[0, ..., :span].sum(-1).mean(-1)


def far_mass(view: LayerView, span: int, window: int) -> Tensor:
    """Attention of the last ``span`` queries to all that lies before their windows, by query head, ``[H]``."""
    place = torch.arange(view.num_slots, device=view.keys_BHND.device)
    far_TN = place[None] <= place[-span:, None] - window
    return (window_attention(by_query_head(view), span)[0] * far_TN).sum(-1).mean(-1)
