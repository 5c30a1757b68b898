"""A small network that foresees how much the blocks of a layer's tokens will have to do with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 1 / 16
"""Of the scores that are learnt."""


def _branch(inputs: int, hidden: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, inputs), nn.ReLU(), nn.Linear(inputs, outputs)
    )


class BlockPredictor(nn.Module):
    """``S = sum over heads of Q(x) K(x)^T``: two branches of three layers read a head's part of a block's tokens."""

    def __init__(self, heads: int, width: int, block: int, hidden: int = 64) -> None:
        super().__init__()
        self.heads, self.width, self.block = heads, width, block
        self.query, self.key = (_branch(block * width, hidden, width) for _ in range(2))

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """Foreseen scores ``[B, C, C]`` of a layer's input, on the scale of the true ones; 0 for rows of padding."""
        real_BT = F.pad(mask_BT, (0, -mask_BT.shape[1] % self.block))
        x = F.pad(hidden_BTH * mask_BT[..., None], (0, 0, 0, real_BT.shape[1] - mask_BT.shape[1]))
        # [B, C * block, heads * width] -> [B, heads, C, block * width]
        blocks = x.unflatten(1, (-1, self.block)).unflatten(3, (self.heads, self.width)).permute(0, 3, 1, 2, 4)
        query, key = self.query(blocks.flatten(3)), self.key(blocks.flatten(3))
        real_BC = real_BT.unflatten(1, (-1, self.block)).any(-1)
        scores: Tensor = (query @ key.transpose(2, 3)).sum(1) * real_BC[..., None] / SCALE
        return scores


Scores = Callable[[Any, Tensor, Tensor], Tensor]
"""``(attention layer, its input [B, T, H], mask [B, T]) -> S [B, C, C]``."""


def hang_predictors(
    model: Any, attentions: Sequence[Any], block: int, rows: Iterable[tuple[Tensor, Tensor]], scores: Scores
) -> None:
    """Give each attention layer a trained and frozen ``block_predictor``, begun from its layer's number."""
    heads = model.config.get_text_config().num_attention_heads
    width = model.config.get_text_config().hidden_size // heads
    predictors = {}
    for attention in attentions:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(attention.layer_idx)
            predictors[attention] = BlockPredictor(heads, width, block).to(model.device, model.dtype)
    if predictors:
        train_predictors(model, predictors, rows, scores)
    for attention, predictor in predictors.items():
        attention.block_predictor = predictor.requires_grad_(False)


def train_predictors(
    model: Any,
    predictors: Mapping[Any, BlockPredictor],
    rows: Iterable[tuple[Tensor, Tensor]],
    scores: Scores,
    learning_rate: float = 1e-3,
) -> list[float]:
    """Fit each attention layer's predictor to the true scores by mean squared error; the model is left as it is.

    One step a batch of ids and mask ``[B, T]``; returns the mean loss of each.
    """
    optimizer = torch.optim.Adam([p for each in predictors.values() for p in each.parameters()], lr=learning_rate)
    inputs: dict[Any, Tensor] = {}

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        inputs[module] = kwargs.get("hidden_states", args[0] if args else None)

    hooks = [attention.register_forward_pre_hook(keep, with_kwargs=True) for attention in predictors]
    losses = []
    try:
        for ids_BT, mask_BT in rows:
            with torch.no_grad():
                model.get_decoder()(input_ids=ids_BT, use_cache=False)
                targets = {layer: scores(layer, inputs[layer], mask_BT) for layer in predictors}
            parts = [
                F.mse_loss(each(inputs[layer], mask_BT) * SCALE, targets[layer] * SCALE)
                for layer, each in predictors.items()
            ]
            loss = torch.stack(parts).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
    finally:
        for hook in hooks:
            hook.remove()
    return losses
