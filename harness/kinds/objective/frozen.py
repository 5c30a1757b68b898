"""The stages that are computed once for a batch, in their order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.kinds.objective.base import ObjectiveMethod
from harness.kinds.objective.batch import RolloutBatch


@dataclass(frozen=True)
class Frozen:
    """What is trained on: the ``rows_N`` of a batch that were selected, their advantages and weights (None for 1)."""

    batch: RolloutBatch
    adv_BT: Tensor
    weight_BT: Tensor | None
    rows_N: Tensor

    def part(self, index_N: Tensor) -> Frozen:
        """These of the selected rows."""
        weight_BT = None if self.weight_BT is None else self.weight_BT[index_N]
        return Frozen(self.batch.rows(index_N), self.adv_BT[index_N], weight_BT, self.rows_N[index_N])


@torch.no_grad()
def frozen_stages(method: ObjectiveMethod, batch: RolloutBatch, progress: float) -> Frozen:
    """Rewards, advantages, selection, mask and weights of a batch; no gradients."""
    batch = replace(batch, rewards_B=method.rewards(batch))
    adv_BT = method.advantage(batch)
    rows_N = method.select(batch, adv_BT, progress)
    if rows_N is None:
        rows_N = torch.arange(batch.size, device=adv_BT.device)
    else:
        batch, adv_BT = batch.rows(rows_N), adv_BT[rows_N]
    mask_BT = method.token_mask(batch, adv_BT, progress)
    if mask_BT is not None:
        batch = replace(batch, response_mask_BT=batch.response_mask_BT & mask_BT)
    return Frozen(batch, adv_BT, method.token_weight(batch, adv_BT, progress), rows_N)


def frozen_loss(method: ObjectiveMethod, frozen: Frozen, logp_BT: Tensor) -> Tensor:
    """The loss where the log-probabilities of all rows of the batch, selected or not, are now ``logp_BT``."""
    return method.loss(logp_BT[frozen.rows_N], frozen.batch, frozen.adv_BT, frozen.weight_BT)
