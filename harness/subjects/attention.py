"""The zoo's attention function, registered with transformers under the name ``zoo``.

With a :class:`ForwardStep` it works on the zoo's cache: padding, evicted slots and draft trees are masked from what
each layer really holds, so layers may hold different slots, and a decode step is two grouped matrix products instead
of a library call that repeats the key/value heads. Without one (training, foreign code) it is transformers' own SDPA.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from harness.subjects.cache import KVCache
from harness.subjects.grouped import grouped_attention, long_cache_kernels, quickest, selected_attention
from harness.subjects.kv_layer import KVLayer

NAME = "zoo"
GROUPED_QUERIES = 32
"""Up to so many query tokens the grouped matrix products are used; above, SDPA's tiling wins."""


@dataclass
class ForwardStep:
    """What the attention of one forward must know: the cache, and which new tokens see which.

    ``block_TM`` (True = row may see column) relates the new tokens to the last M, of which the last T are themselves
    and the others came in forwards since the last commit; None means causal. ``valid_BT`` marks left padding among the
    new tokens; None where there is none. ``depth_M`` is each of the M tokens' distance from the first position that is
    not committed; None where they follow each other.
    """

    cache: KVCache
    block_TM: Tensor | None = None
    valid_BT: Tensor | None = None
    depth_M: Tensor | None = None
    _masks: dict[tuple[int, int | None, int, int], Tensor] = field(default_factory=dict)

    def allowed(self, index: int, num_queries: int, device: torch.device, window: int | None) -> Tensor | None:
        """Mask ``[B|1, H|1, T, N]`` of layer ``index`` (True = may attend), or None where all slots are seen."""
        layer = self.cache.layers[index]
        slots = layer.length
        # Pruned layers hold slots that are further apart in the text than in the buffer.
        if window is not None and layer.position is None and slots <= window:
            window = None
        if num_queries == 1 and self.block_TM is None and layer.valid is None and window is None:
            return None
        # Layers that hold the same slots share their mask.
        key = (slots, window, id(layer.valid), 0 if window is None else id(layer.position))
        if key not in self._masks:
            self._masks[key] = self._build(index, num_queries, device, window)
        return self._masks[key]

    def _build(self, index: int, num_queries: int, device: torch.device, window: int | None) -> Tensor:
        layer: KVLayer = self.cache.layers[index]
        slots = layer.length
        block = self.block_TM
        if block is None:
            block = torch.ones(num_queries, num_queries, dtype=torch.bool, device=device).tril()
        mask = torch.cat([block.new_ones(num_queries, slots - block.shape[1]), block], 1)[None, None]
        if layer.valid is not None:
            mask = mask & layer.valid[:, :, None, :]
        if window is not None:
            mask = mask & self._inside(window, index, num_queries, slots, device)
        own = torch.eye(num_queries, dtype=torch.bool, device=device)
        mask[..., slots - num_queries :] |= own
        return mask

    def _inside(self, window: int, index: int, num_queries: int, slots: int, device: torch.device) -> Tensor:
        """Slots within a sliding window of each query, by position in the text."""
        position = self.cache.layers[index].position
        if position is None:
            place = torch.arange(slots, device=device)
            if self.depth_M is not None:
                grown = len(self.depth_M)
                place[slots - grown :] = slots - grown + self.depth_M
            position = place[None, None]
        inside: Tensor = (position[:, :, -num_queries:, None] - position[:, :, None, :]) < window
        return inside


def zoo_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    zoo_step: ForwardStep | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over ``query [B,H,T,D]`` and the live slots ``key, value [B,G,N,D]``; returns ``[B,T,H,D]``."""
    if zoo_step is None:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    index = int(module.layer_idx)  # type: ignore[arg-type]
    with long_cache_kernels(query, key.shape[2]):
        out = _attend(zoo_step, index, query, key, value, scale, sliding_window, softcap)
    zoo_step.cache.observe(index, query, scale)
    return out.transpose(1, 2), None


def _attend(
    step: ForwardStep,
    index: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attention of layer ``index`` by the path that is fastest for its shapes, ``[B, H, T, D]``."""
    num_queries, slots = query.shape[2], key.shape[2]
    whole = num_queries == slots and step.valid_BT is None and step.block_TM is None
    dense = step.cache.select is None or step.cache.phase == "prefill"
    if whole and dense and num_queries > 1 and softcap is None and (window or slots) >= slots:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)
    mask = step.allowed(index, num_queries, query.device, window)
    # A layer with a sliding window reads little as it is.
    chosen = step.cache.selection(index, query, mask, scale) if window is None else None
    if chosen is not None:
        return selected_attention(query, key, value, mask, chosen, scale, softcap)
    if num_queries <= GROUPED_QUERIES or softcap is not None:
        return grouped_attention(*quickest(query, key, value), mask, scale, softcap).to(query.dtype)
    if mask is not None and mask.shape[1] > 1:
        mask = mask.repeat_interleave(query.shape[1] // mask.shape[1], 1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)


AttentionInterface.register(NAME, zoo_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
