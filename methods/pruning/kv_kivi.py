"""KIVI: keys are quantised per channel, values per token; the last tokens stay as they are.

A group of numbers x is stored as codes round((x - m) / s) of b bits with m = min x and s = (max x - m) / (2^b - 1);
reading gives code s + m. Keys have few channels of great size, so a key group is one channel of ``group`` tokens; a
value group is part of one token. Whenever the full-precision tail holds ``group`` tokens more than ``residual``, its
oldest ``group`` tokens are packed, once and for good.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import PruningMethod
from harness.kinds.pruning.packed_layer import Parts, packed_cache


def quantized(x: Tensor, bits: int, dim: int) -> Parts:
    """Codes (uint8, as ``x``), step and minimum (as ``x``, ``dim`` of size 1) of groups along ``dim``."""
    low, high = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
    step = (high - low) / (2**bits - 1)
    # A constant group has step 0 and codes 0: it comes back exactly.
    codes = ((x - low) / step.where(step > 0, 1)).round_().clamp_(0, 2**bits - 1)
    return codes.to(torch.uint8), step, low


def bit_packed(codes: Tensor, bits: int) -> Tensor:
    """``8 / bits`` codes of the last dimension a byte, the first in the lowest bits."""
    shift = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
    packed: Tensor = (codes.unflatten(-1, (-1, len(shift))) << shift).sum(-1, dtype=torch.uint8)
    return packed


def bit_unpacked(packed: Tensor, bits: int) -> Tensor:
    """The codes of :func:`bit_packed`."""
    shift = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> shift) & (2**bits - 1)).flatten(-2)


class KiviCodec:
    """Groups of tokens as packed codes with steps and minima, keys first."""

    def __init__(self, bits: int, group: int) -> None:
        self.bits, self.group = bits, group

    def pack(self, keys_BHMGD: Tensor, values_BHMGD: Tensor) -> Parts:
        """Six tensors ``[B, H, M, ...]``."""
        channels = math.gcd(self.group, values_BHMGD.shape[-1])
        split = values_BHMGD.unflatten(-1, (-1, channels))
        keys, key_step, key_low = quantized(keys_BHMGD, self.bits, -2)
        values, value_step, value_low = quantized(split, self.bits, -1)
        keys, values = bit_packed(keys, self.bits), bit_packed(values.flatten(-2), self.bits)
        return keys, key_step, key_low, values, value_step, value_low

    def unpack(self, parts: Parts, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``[B, H, M * G, D]`` each."""
        keys, key_step, key_low, values, value_step, value_low = parts
        key = bit_unpacked(keys, self.bits).to(dtype) * key_step + key_low
        codes = bit_unpacked(values, self.bits).to(dtype).unflatten(-1, (value_step.shape[-2], -1))
        return key.flatten(2, 3), (codes * value_step + value_low).flatten(-2).flatten(2, 3)


@method(
    id="kv_kivi",
    kind="pruning",
    title="KIVI: a quantised cache",
    paper="arXiv:2402.02750",
    guarantee="approximate",
    baseline="kv_full",
    identity={"bits": 16},
    claims=[
        {
            "metric": "peak memory, weights included",
            "value": 0.385,
            "against": "16-bit cache",
            "on": "Llama, Falcon and Mistral at 2 bits (abstract: '2.6x less')",
        },
        {
            "metric": "throughput",
            "value": 3.47,
            "against": "16-bit cache",
            "on": "real workloads, up to 4x larger batches (abstract: 2.35x to 3.47x)",
        },
    ],
    details={
        "bits, group, residual": "paper family: 2 or 4 bits, groups of 32, 128 last tokens",
        "values": "ours: packed in step with keys; the release packs each token as it leaves the tail",
        "value groups": "the greatest common divisor of group and head width, where the width is no multiple",
        "steps and minima": "ours: in the model's type, counted in the bytes held",
        "prompt": "paper: its own attention reads exact keys and values",
        "reading": "ours: a layer is unpacked to be read, so memory is saved and time is not; the release has a kernel",
        "padded batches": "ours: rows are stored as wide as the longest",
        "bits=16": "ours: nothing is packed",
    },
)
class KvKivi(PruningMethod):
    """Keeps all slots, most of them in few bits."""

    bits: Literal[2, 4, 8, 16] = Field(2, description="of each code; 16: the full cache")
    group: int = Field(32, ge=1, description="tokens of a key group, channels of a value group")
    residual: int = Field(128, ge=0, description="last tokens that are never packed")

    def cache_options(self, subject, artifact):  # type: ignore[no-untyped-def]
        """A cache of packed layers."""
        if self.bits == 16:
            return {}
        codec = KiviCodec(self.bits, self.group)
        return packed_cache(subject, self.card.id, codec, self.group, self.residual)
