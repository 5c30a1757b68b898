"""SpAtten: tokens and heads that get or give little leave the model for good, layer by layer.

s_j = sum over layers, heads and queries of the attention that token j receives; before layer l the ceil(r_l n) tokens
of the largest s go on, with their attention, feed-forward and cache. t_h = sum over layers, tokens and channels of
|O_h|, what head h gives to the output projection; pruned heads give nothing from then on. r falls linearly from a start
to an end. While decoding, a query head may read the values of its most probable slots alone.
"""

import math
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import QueryView, Selection, best_slots, group_queries, logits
from harness.kinds.pruning.cascade import Cascade, CascadeMethod


def layer_ratio(layer: int, layers: int, free: float, start: float, end: float) -> float:
    """What is left in a layer: all in the first ``free`` part of them, then from ``start`` evenly down to ``end``."""
    first = math.ceil(free * layers - 1e-9)
    if layer < first:
        return 1.0
    steps = layers - 1 - first
    return end if steps <= 0 else start + (end - start) * (layer - first) / steps


def local_values(weights_BHTN: Tensor, allowed: Tensor | None, keep_BT: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Each query head's most probable slots, their validity, and the attention that lies on them, ``[B, H, T]``."""
    index, valid = best_slots(weights_BHTN, allowed, keep_BT)
    read = weights_BHTN.gather(-1, index)
    return index, valid, (read if valid is None else read * valid).sum(-1)


@method(
    id="spatten",
    kind="pruning",
    title="SpAtten: cascade token and head pruning",
    paper="arXiv:2012.09852",
    guarantee="approximate",
    baseline="kv_full",
    identity={"token_start": 1.0, "token_end": 1.0, "head_start": 1.0, "head_end": 1.0, "value_keep": 1.0},
    claims=[
        {
            "metric": "DRAM access",
            "value": 0.1,
            "against": "no pruning, full width",
            "on": "30 benchmarks, no loss of accuracy (abstract: '10.0x' less, quantisation included)",
        }
    ],
    details={
        "schedule": "reconstruction: 15 % of layers keep all tokens, 30 % all heads (the first always); then a line",
        "token_end, head_end": "ours: 0.5 and 1; the paper tunes them for each task",
        "prompt": "tokens leave while the prompt is read; decoded tokens all stay (ours)",
        "last token": "always stays; a token that has left keeps its state, which only its own logits show",
        "causality": "which tokens of the prompt go on depends on later ones, so its inner logits do too",
        "grouped heads": "query heads are pruned; their keys and values stay",
        "head pruning": "ours: the outputs are zeroed, their cost is not saved",
        "value_keep": "paper: local value pruning; ours: while decoding only, the query's own slot among those read",
        "renormalize": "reconstruction: off, the hardware skips values; on: the weights read are made to sum to 1",
        "progressive quantisation": "not part of this method",
    },
)
class Spatten(CascadeMethod):
    """Importance by attention received and output given."""

    token_start: float = Field(1.0, gt=0, le=1, description="part of the prompt in the first layer that prunes")
    token_end: float = Field(0.5, gt=0, le=1, description="part of the prompt that reaches the last layer")
    token_free: float = Field(0.15, ge=0, le=1, description="first part of the layers with all tokens")
    head_start: float = Field(1.0, gt=0, le=1, description="part of the heads in the first layer that prunes")
    head_end: float = Field(1.0, gt=0, le=1, description="part of the heads in the last layer")
    head_free: float = Field(0.3, ge=0, le=1, description="first part of the layers with all heads")
    value_keep: float = Field(1.0, gt=0, le=1, description="part of the slots whose values a decoding query reads")
    renormalize: bool = Field(False, description="make the weights of the values read sum to 1")

    def keep_tokens(self, layer: int, num_layers: int, length_B: Tensor) -> Tensor:
        """``ceil(r_l n)``."""
        ratio = layer_ratio(layer, num_layers, self.token_free, self.token_start, self.token_end)
        return (ratio * length_B.double() - 1e-9).ceil().long().clamp(min=1)

    def keep_heads(self, layer: int, num_layers: int, heads: int) -> int:
        """``ceil(r_l H)``."""
        ratio = layer_ratio(layer, num_layers, self.head_free, self.head_start, self.head_end)
        return max(1, math.ceil(ratio * heads - 1e-9))

    def cache_options(self, subject, artifact):  # type: ignore[no-untyped-def]
        """With local value pruning, a cache of which decoding reads a part."""
        options = super().cache_options(subject, artifact)
        return options if self.value_keep == 1 else options | {"select": partial(self.select, cascade=artifact)}

    def select(self, view: QueryView, cascade: Cascade):  # type: ignore[no-untyped-def]
        """Slots whose values are read; every key is."""
        if view.phase == "prefill":
            return None
        weights = logits(group_queries(view), view.keys_BGND).flatten(1, 2) * view.scaling
        available_BT = torch.full((len(weights), 1), view.num_slots, device=weights.device)
        if view.allowed is not None:
            weights = weights.masked_fill(~view.allowed, -torch.inf)
            available_BT = view.allowed[:, 0].sum(-1).expand(len(weights), -1)
        keep_BT = (self.value_keep * available_BT.double() - 1e-9).ceil().long().clamp(min=1)
        index, valid, mass_BHT = local_values(weights.softmax(-1), view.allowed, keep_BT)
        if not self.renormalize:
            cascade.scales[view.layer] = mass_BHT
        # A selection counts the keys and values of its slots; here all keys are read and the chosen values.
        return Selection(index, valid, 0.5 * (1 - index.shape[-1] / view.num_slots))
