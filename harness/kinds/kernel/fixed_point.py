"""Linear symmetric fixed-point numbers whose high bits can be fetched before the low ones, simulated bit by bit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FixedPoint:
    """Codes ``x = scale * code`` of ``high + low`` bits, cut into the ``high`` most significant bits and the rest.

    ``msb`` is the code shifted right (towards minus infinity), ``lsb`` holds 0 to ``2^low - 1``; ``scale`` is one
    number for each head.
    """

    msb: Tensor
    lsb: Tensor
    scale: Tensor
    low: int

    @classmethod
    def of(cls, x: Tensor, high: int, low: int) -> FixedPoint:
        """Round ``[..., N, D]``; the largest magnitude of a head becomes the largest code. A head of zeros stays 0."""
        top = 2 ** (high + low - 1) - 1
        largest = x.float().abs().amax((-2, -1), keepdim=True)
        scale = torch.where(largest > 0, largest / top, torch.ones_like(largest))
        code = (x.float() / scale).round().clamp(-top, top).to(torch.int32)
        return cls(code >> low, code & (2**low - 1), scale, low)

    @property
    def code(self) -> Tensor:
        """The whole code, from both parts."""
        return (self.msb << self.low) + self.lsb

    @property
    def full(self) -> Tensor:
        """The numbers at full width, float32."""
        numbers: Tensor = self.code * self.scale
        return numbers

    @property
    def coarse(self) -> Tensor:
        """The numbers that the high bits alone give: the middle of what the low bits may add."""
        numbers: Tensor = ((self.msb << self.low) + (2**self.low - 1) / 2) * self.scale
        return numbers
