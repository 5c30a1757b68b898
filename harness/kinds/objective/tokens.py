"""Choosing tokens: the best of a row, group or batch, ranks, and chance that is the same in any order of the rows.

Chance is drawn from the log-probabilities of the batch, so a training needs no further seed, and what a rule draws
does not depend on where a response stands.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.kinds.objective.batch import RolloutBatch
from harness.kinds.objective.stages import group_index, masked

ODD_A, ODD_B, STEP = -7046029254386353131, -4417276706812531889, 1442695040888963407
"""Odd 64-bit constants that mix bits well when they are multiplied in."""


def select_topk(scores_BT: Tensor, mask_BT: Tensor, keep: float, scope_B: Tensor) -> Tensor:
    """True for the ``ceil(keep n)`` best of the ``n`` valid tokens of each scope, ``[B, T]``.

    Rows with one number in ``scope_B`` share a scope. Ties go to the earlier token.
    """
    owner_B, scopes = group_index(scope_B)
    owner_N = owner_B[:, None].expand(mask_BT.shape)[mask_BT]
    best_N = scores_BT[mask_BT].argsort(descending=True, stable=True)
    best_N = best_N[owner_N[best_N].argsort(stable=True)]
    count_S = torch.bincount(owner_N, minlength=scopes)
    first_S = count_S.cumsum(0) - count_S
    rank_N = torch.arange(len(best_N), device=best_N.device) - first_S[owner_N[best_N]]
    wanted_S = (count_S.double() * keep - 1e-9).ceil()
    kept_N = torch.zeros(len(best_N), dtype=torch.bool, device=best_N.device)
    kept_N[best_N] = rank_N < wanted_S[owner_N[best_N]]
    return torch.zeros_like(mask_BT).masked_scatter(mask_BT, kept_N)


def every_row(mask_BT: Tensor) -> Tensor:
    """Each row a scope of its own, ``[B]``."""
    return torch.arange(len(mask_BT), device=mask_BT.device)


def whole_batch(mask_BT: Tensor) -> Tensor:
    """All rows in one scope, ``[B]``."""
    return every_row(mask_BT) * 0


def percentile_rank(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The part of the other valid values that lies below, ties counting half, ``[B, T]``; 1/2 for a single value."""
    valid_N = values_BT[mask_BT]
    ordered_N = valid_N.sort().values
    below_N = torch.searchsorted(ordered_N, valid_N)
    upto_N = torch.searchsorted(ordered_N, valid_N, right=True)
    rank_N = (
        (below_N + upto_N - 1) / 2 / max(len(valid_N) - 1, 1) if len(valid_N) > 1 else torch.full_like(valid_N, 0.5)
    )
    return torch.zeros_like(values_BT).masked_scatter(mask_BT, rank_N.to(values_BT.dtype))


def _uniform(code: Tensor) -> Tensor:
    """Numbers in [0, 1) from 64-bit codes; neighbouring codes give unrelated numbers."""
    for factor in (ODD_A, ODD_B):
        code = code * factor
        code = code ^ ((code >> 32) & 0xFFFFFFFF)
    return ((code >> 11) & ((1 << 53) - 1)).double() / (1 << 53)


def _bits(batch: RolloutBatch) -> Tensor:
    return masked(batch.old_logps_BT.double(), batch.response_mask_BT).contiguous().view(torch.int64)


def token_chance(batch: RolloutBatch) -> Tensor:
    """A random number in [0, 1) for each token, ``[B, T]`` float64."""
    bits_BT = _bits(batch)
    place_T = torch.arange(1, bits_BT.shape[1] + 1, device=bits_BT.device) * STEP
    return _uniform(bits_BT.sum(1, keepdim=True) + bits_BT * ODD_B + place_T)


def row_chance(batch: RolloutBatch) -> Tensor:
    """A random number in [0, 1) for each response, ``[B]`` float64."""
    return _uniform(_bits(batch).sum(1))


def shuffled(values_BT: Tensor, batch: RolloutBatch) -> Tensor:
    """Each response's values in random places of it: the control of a rule that claims to know which token counts."""
    mask_BT = batch.response_mask_BT
    places_BT = (~mask_BT).long().argsort(dim=1, stable=True)
    drawn_BT = token_chance(batch).masked_fill(~mask_BT, math.inf).argsort(dim=1)
    moved_BT = torch.zeros_like(values_BT).scatter(1, drawn_BT, values_BT.gather(1, places_BT))
    return torch.where(mask_BT, moved_BT, values_BT)
