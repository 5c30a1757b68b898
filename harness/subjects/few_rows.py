"""Faster CPU kernels for a forward of a few rows: a plain decode step has one, the verification of a draft some more.

The libraries torch calls, oneDNN for bfloat16 and MKL for float32, reorder a weight on every call; for few rows that is
most of the time. So the weights are kept a second time in oneDNN's order, and a forward of a few rows costs little more
than one of a single row. In bfloat16 a single row is torch's own matrix-vector product. The second copy takes as much
memory as the linear weights, so models above :data:`PACKED_BYTES` do without it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

PACKED_BYTES = 2 << 30
"""Linear weights of a model that may be kept twice."""
PACKED_ROWS = {torch.bfloat16: 512, torch.float32: 32}
"""Up to so many rows the second copy is used; above, reordering no longer counts."""
INSTRUCTIONS = {torch.bfloat16: "avx512_bf16", torch.float32: "avx2"}
"""What a CPU must have for the packed product to be the faster one."""

_packed: weakref.WeakKeyDictionary[nn.Module, tuple[weakref.ref[Tensor], int, Tensor]] = weakref.WeakKeyDictionary()


@cache
def few_row_kernels_are_faster(dtype: torch.dtype) -> bool:
    """Whether this CPU has the instructions that make the kernels for this type pay."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get(INSTRUCTIONS.get(dtype, ""))) and torch.backends.mkldnn.is_available()


@contextmanager
def row_kernels(rows: int, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Choose the kernels of linear layers for a forward over ``rows`` rows (batch times tokens)."""
    if rows != 1 or dtype != torch.bfloat16 or device.type != "cpu" or not few_row_kernels_are_faster(dtype):
        yield
        return
    before = torch.backends.mkldnn.set_flags(False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before[0])


class FewRowLinear(nn.Linear):
    """A linear layer that multiplies a few rows with its packed copy; all else is ``nn.Linear``."""

    def forward(self, input: Tensor) -> Tensor:
        """``[..., in] -> [..., out]``."""
        if _may_pack(self.weight, input):
            out: Tensor = torch.ops.mkldnn._linear_pointwise.default(
                input, packed_weight(self), self.bias, "none", [], ""
            )
            return out
        return super().forward(input)


def _may_pack(weight: Tensor, given: Tensor) -> bool:
    """For a few rows, and only where nothing is differentiated: the packed product has no backward."""
    return (
        1 < given.numel() // given.shape[-1] <= PACKED_ROWS.get(given.dtype, 0)
        and weight.dtype == given.dtype
        and not weight.is_inference()
        and not (torch.is_grad_enabled() and (weight.requires_grad or given.requires_grad))
    )


def packed_weight(layer: nn.Linear) -> Tensor:
    """The layer's weight in oneDNN's order, made again when the weight was exchanged or changed in place.

    A change is seen by the parameter's version; one that goes around it, through ``weight.data``, is not.
    """
    weight = layer.weight
    held = _packed.get(layer)
    if held is None or held[0]() is not weight or held[1] != weight._version:
        with torch.inference_mode(False), torch.no_grad():
            packed = torch.ops.mkldnn._reorder_linear_weight.default(weight.detach().contiguous(), 16)
        held = (weakref.ref(weight), weight._version, packed)
        _packed[layer] = held
    return held[2]


def use_few_row_kernels(model: Any) -> None:
    """Make the model's plain linear layers :class:`FewRowLinear`, where CPU, type and size allow."""
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    fits = sum(layer.weight.numel() * layer.weight.element_size() for layer in layers) <= PACKED_BYTES
    kinds = {(layer.weight.dtype, layer.weight.device.type) for layer in layers}
    if fits and any(kinds == {(dtype, "cpu")} and few_row_kernels_are_faster(dtype) for dtype in PACKED_ROWS):
        for layer in layers:
            layer.__class__ = FewRowLinear


def has_few_row_kernels(model: Any) -> bool:
    """Whether :func:`use_few_row_kernels` changed the model."""
    return any(isinstance(module, FewRowLinear) for module in model.modules())
