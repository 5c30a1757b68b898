"""Low-rank adapters: frozen linear layers with a trainable product of two thin matrices beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LowRankLinear(nn.Module):
    """``W x + alpha / rank * B (A x)``; W is frozen, B starts at zero, so that the layer begins as it was."""

    def __init__(self, frozen: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.frozen, self.scale = frozen.requires_grad_(False), alpha / rank
        weight = frozen.weight
        self.down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Any leading dimensions."""
        out: Tensor = self.frozen(x) + F.linear(F.linear(x, self.down), self.up) * self.scale
        return out

    def merged(self) -> nn.Linear:
        """The frozen layer with the product added to its weights."""
        with torch.no_grad():
            product = self.up.float() @ self.down.float() if self.up.dtype.itemsize < 4 else self.up @ self.down
            self.frozen.weight += (product * self.scale).to(self.frozen.weight.dtype)
        return self.frozen


def add_adapters(model: Any, names: Iterable[str], rank: int, alpha: float, seed: int) -> dict[str, nn.Parameter]:
    """Freeze the model and give every linear layer of these names an adapter; returns the trainable parameters."""
    model.requires_grad_(False)
    wanted, trainable = set(names), dict[str, nn.Parameter]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for path, module in list(model.named_modules()):
            if path.rsplit(".", 1)[-1] in wanted and isinstance(module, nn.Linear):
                adapter = LowRankLinear(module, rank, alpha)
                model.set_submodule(path, adapter)
                trainable |= {f"{path}.{name}": getattr(adapter, name) for name in ("down", "up")}
    return trainable


def merge_adapters(model: Any) -> None:
    """Put plain linear layers back in the adapters' places, with the products added."""
    for path, module in list(model.named_modules()):
        if isinstance(module, LowRankLinear):
            model.set_submodule(path, module.merged())
