"""Scheduling of credit in time: train a targeted part of each response at first, and all of it later.

rho goes from ``rho`` to 0 between ``begin`` and ``finish`` of the training. ``criterion`` "tp" drops the leading
min(int(rho n), n - 1) of a response's n tokens, which then are context like the prompt; "forking" keeps its
ceil((1 - rho) n) tokens of the highest old-policy entropy; "entropy_adv" drops nothing but adds rho min(alpha H,
|A| / kappa) to the advantage. Advantages come from whole responses; the loss is the mean over the kept tokens.
"""

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod, aggregate
from harness.kinds.objective.schedules import schedule
from harness.kinds.objective.tokens import every_row, select_topk, shuffled


def without_lead(mask_BT: Tensor, rho: float) -> Tensor:
    """True for valid tokens after the first ``min(int(rho n), n - 1)``, ``[B, T]``."""
    length_B = mask_BT.sum(1)
    dropped_B = torch.minimum((rho * length_B.double() + 1e-9).long(), length_B - 1)
    return mask_BT & (mask_BT.cumsum(1) - 1 >= dropped_B[:, None])


def entropy_bonus(adv_BT: Tensor, entropy_BT: Tensor, rho: float, alpha: float, kappa: float) -> Tensor:
    """What is added to the advantage, ``[B, T]``; for ``kappa > 1`` it is too small to turn a sign."""
    return rho * torch.minimum(alpha * entropy_BT, adv_BT.abs() / kappa)


@method(
    id="temporal_schedule",
    kind="objective",
    title="Not only where, but when: temporal scheduling of credit",
    paper="arXiv:2605.25381",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    details={
        "rho, begin, finish, alpha, kappa": "reference code: 0.99, 0, 0.8, 0.4, 2",
        "curve": "reference code: linear by default; there, power raises rho too, so that it starts below rho",
        "clip": "reference code: 0.2 below, 0.28 above",
        "denominator": "reference code: the kept tokens",
        "entropy_adv": "as a weight of the loss, 1 + bonus / A, which is the same for the positive weights it has",
        "static, reversed, head": "ours: the twins that the claim has to beat (curve=constant, reverse, keep=head)",
        "off-policy schedule": "reference code has a fourth mode with reference solutions; not offered",
    },
)
class TemporalSchedule(ObjectiveMethod):
    """With rho=0 it is GRPO with token aggregation and this clip."""

    clip_high: float = Field(0.28, gt=0, description="ratios above 1 plus this are clipped")
    criterion: Literal["tp", "forking", "entropy_adv"] = Field("tp", description="what is scheduled")
    curve: Literal["linear", "power", "sigmoid", "constant"] = Field("linear", description="way from rho to 0")
    rho: float = Field(0.99, ge=0, lt=1, description="strength at the start")
    begin: float = Field(0.0, ge=0, lt=1, description="part of the training at which the strength begins to fall")
    finish: float = Field(0.8, gt=0, le=1, validate_default=True, description="part at which it is 0, after begin")
    alpha: float = Field(0.4, ge=0, description="bonus of the advantage in each nat of entropy")
    kappa: float = Field(2.0, gt=1, description="the bonus is at most |A| over this")
    keep: Literal["tail", "head"] = Field("tail", description="the end of a response that tp keeps")
    reverse: bool = Field(False, description="run the schedule backwards")
    shuffle: bool = Field(False, description="control: the same choice in random places of each response")

    @field_validator("finish")
    @classmethod
    def _after_begin(cls, finish, info):  # type: ignore[no-untyped-def]
        if finish <= info.data.get("begin", 0.0):
            raise ValueError(f"must be above begin, which is {info.data['begin']}")
        return finish

    def strength(self, progress):  # type: ignore[no-untyped-def]
        """rho at this progress."""
        at = 1 - progress if self.reverse else progress
        return schedule(self.curve, self.rho, 0.0, at, self.begin, self.finish)

    def token_mask(self, batch, adv_BT, progress):  # type: ignore[no-untyped-def]
        """The part of each response that is trained."""
        rho, mask_BT = self.strength(progress), batch.response_mask_BT
        if rho == 0 or self.criterion == "entropy_adv":
            return None
        if self.criterion == "forking":
            kept_BT = select_topk(batch.entropy_BT, mask_BT, 1 - rho, every_row(mask_BT))
        elif self.keep == "tail":
            kept_BT = without_lead(mask_BT, rho)
        else:
            kept_BT = without_lead(mask_BT.flip(1), rho).flip(1)
        return shuffled(kept_BT, batch) if self.shuffle else kept_BT

    def token_weight(self, batch, adv_BT, progress):  # type: ignore[no-untyped-def]
        """The advantage with its bonus, over the advantage."""
        rho = self.strength(progress)
        if rho == 0 or self.criterion != "entropy_adv":
            return None
        entropy_BT = shuffled(batch.entropy_BT, batch) if self.shuffle else batch.entropy_BT
        bonus_BT = entropy_bonus(adv_BT, entropy_BT, rho, self.alpha, self.kappa)
        return 1 + torch.where(adv_BT == 0, torch.zeros_like(bonus_BT), bonus_BT / adv_BT)

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """Mean over the kept tokens."""
        return aggregate(loss_BT, batch.response_mask_BT, "token")
