"""The mean of token losses within each sign of the advantage, mixed by how many responses have that sign."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.kinds.objective.stages import group_index, group_sum, masked


def balanced(
    loss_BT: Tensor, mask_BT: Tensor, adv_B: Tensor, group_ids_B: Tensor, skip_zero_groups: bool = False
) -> Tensor:
    """The scalar loss of per-token losses ``[B, T]``.

    A response with advantage 0 is in neither set but counts in G. An empty response adds no token, but counts in its
    set and in G. ``skip_zero_groups`` divides by the groups that have a non-zero advantage, instead of by all.
    """
    group_B, groups = group_index(group_ids_B)
    sum_B, tokens_B = masked(loss_BT, mask_BT).sum(1), mask_BT.sum(1).to(loss_BT.dtype)
    size_G = group_sum(torch.ones_like(sum_B), group_B, groups)
    total = loss_BT.new_zeros(groups)
    for in_set_B in ((adv_B > 0).to(loss_BT.dtype), (adv_B < 0).to(loss_BT.dtype)):
        mean_G = group_sum(sum_B * in_set_B, group_B, groups) / group_sum(tokens_B * in_set_B, group_B, groups).clamp(
            min=1
        )
        total = total + group_sum(in_set_B, group_B, groups) / size_G * mean_G
    if not skip_zero_groups:
        return total.mean()
    live = group_sum((adv_B != 0).to(loss_BT.dtype), group_B, groups) > 0
    return total.sum() / live.sum().clamp(min=1)
