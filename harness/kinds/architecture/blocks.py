"""Transformer layers over vectors: the networks of which hierarchical models are made."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from harness.errors import Refused

ROTARY_BASE = 10_000.0


def initial_std(width: int) -> float:
    """Deviation of initial weights: 0.02 for the usual width of 1024, and the same size of outputs for any other."""
    return 0.02 * math.sqrt(1024 / width)


def causal_mask(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """``[1, 1, T, S]``: the last ``queries`` of ``keys`` places see themselves and ``window - 1`` before."""
    query_T1 = torch.arange(keys - queries, keys, device=device)[:, None]
    back_TS = query_T1 - torch.arange(keys, device=device)
    seen_TS = back_TS >= 0
    return (seen_TS if window is None else seen_TS & (back_TS < window))[None, None]


def turns(place_BT: Tensor, head_width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[B, T, H]`` of rotary positions."""
    rate_H = ROTARY_BASE ** -(torch.arange(0, head_width, 2, device=place_BT.device) / head_width)
    angle_BTH = place_BT[..., None] * rate_H.repeat(2)
    return angle_BTH.cos().to(dtype), angle_BTH.sin().to(dtype)


class Blocks(nn.Module):
    """Llama layers with a last norm, without a table of tokens before or a head behind; causal unless masked.

    ``window``: places that a place sees of the past, itself included; None for all.
    """

    def __init__(self, width: int, layers: int, heads: int, window: int | None = None) -> None:
        super().__init__()
        if width % (2 * heads):
            raise Refused(f"a width of {width} is no multiple of twice the {heads} heads")
        config = LlamaConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            attn_implementation="sdpa",
        )
        self.window, self.head_width = window, width // heads
        self.layers = nn.ModuleList(LlamaDecoderLayer(config, index) for index in range(layers))
        self.norm = nn.RMSNorm(width, eps=config.rms_norm_eps)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # What is added to the stream is scaled down by the number of additions.
                added = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=initial_std(width) / ((2 * layers) ** 0.5 if added else 1))

    def forward(
        self,
        x_BTD: Tensor,
        mask: Tensor | None = None,
        cache: DynamicCache | None = None,
        place_BT: Tensor | None = None,
    ) -> Tensor:
        """``[B, T, D]``. ``mask``, True where a place is seen, broadcasts to ``[B, 1, T, S]``; ``cache`` goes on.

        ``place_BT``: positions, where they do not simply count on.
        """
        first = 0 if cache is None else cache.get_seq_length()
        count = x_BTD.shape[1]
        if mask is None:
            mask = causal_mask(count, first + count, self.window, x_BTD.device)
        if place_BT is None:
            place_BT = torch.arange(first, first + count, device=x_BTD.device)[None]
        turned = turns(place_BT, self.head_width, x_BTD.dtype)
        for layer in self.layers:
            x_BTD = layer(x_BTD, attention_mask=mask, past_key_values=cache, position_embeddings=turned)
        return self.norm(x_BTD)  # type: ignore[no-any-return]
