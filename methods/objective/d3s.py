"""D3S: train on the rollouts whose advantages spread the most, and in them on influential and uncertain tokens.

1. Of the candidates, a whole batch or one group, the N whose advantages have the largest variance: in sorted order
these are always the j largest and the N - j smallest for some j, so all j are tried. 2. Of their tokens the K with the
largest |A_it| H_it, H being the old policy's entropy. 3. Both shares go linearly from their start to their end while
training goes on. Advantages are normalised within whole groups before anything is dropped.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod, aggregate
from harness.kinds.objective.schedules import schedule
from harness.kinds.objective.tokens import row_chance, select_topk, shuffled, whole_batch


def widest_spread(values_N: Tensor, keep: int, order_N: Tensor) -> Tensor:
    """Indices of the ``keep`` values with the largest variance, ``[keep]``, ascending; all where there are fewer.

    Equal values are taken in the order of ``order_N``. Values within 1e-9 are equal, so that the order in which a
    group was summed decides nothing.
    """
    first_N = order_N.argsort()
    sorted_N = first_N[values_N[first_N].double().round(decimals=9).argsort(stable=True)]
    total = len(values_N)
    if keep >= total:
        return torch.arange(total, device=values_N.device)
    held_N = values_N[sorted_N].double()
    sums, squares = (torch.cat([held_N.new_zeros(1), x.cumsum(0)]) for x in (held_N, held_N.square()))
    low = torch.arange(keep + 1, device=values_N.device)
    high = total - (keep - low)
    mean_J = (sums[low] + sums[total] - sums[high]) / keep
    variance_J = (squares[low] + squares[total] - squares[high]) / keep - mean_J.square()
    best = int((variance_J >= variance_J.max() - 1e-9).nonzero()[0])
    return torch.cat([sorted_N[:best], sorted_N[total - (keep - best) :]]).sort().values


@method(
    id="d3s",
    kind="objective",
    title="D3S: dynamic dual-level down-sampling of rollouts and tokens",
    paper="arXiv:2509.22115",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    claims=[
        {
            "metric": "average Pass@1 of seven mathematics sets",
            "value": 34.3,
            "against": "29.8 GRPO, 34.1 with reward-variance selection",
            "on": "Qwen2.5-Math-7B (reported second-hand)",
        },
        {
            "metric": "average Pass@8 of seven mathematics sets",
            "value": 56.8,
            "against": "53.1 GRPO, 54.4 with reward-variance selection",
            "on": "Qwen2.5-Math-7B (reported second-hand)",
        },
    ],
    details={
        "formulas": "public digests; the paper was not read in full and has no released code",
        "shares at start and end": "reconstruction: the paper's values were not found",
        "ties of rollouts": "ours: by chance, not by index; zero-advantage rollouts lie in the middle and go first",
        "tokens": "reconstruction: rounded up, at least one, ties to the earlier",
        "denominator": "reconstruction: the kept tokens; all tokens of the kept rollouts on request",
        "base": "grpo with token aggregation; the paper's GSPO base is not offered",
    },
)
class D3s(ObjectiveMethod):
    """With all shares at 1 it is GRPO with token aggregation."""

    rows_start: float = Field(0.5, gt=0, le=1, description="part of the rollouts that is trained on at first")
    rows_end: float = Field(1.0, gt=0, le=1, description="the same at the end")
    tokens_start: float = Field(0.2, gt=0, le=1, description="part of their tokens that is trained on at first")
    tokens_end: float = Field(1.0, gt=0, le=1, description="the same at the end")
    scope: Literal["batch", "query"] = Field("batch", description="candidates: all rollouts, or one prompt's")
    denominator: Literal["selected", "all"] = Field("selected", description="tokens that the mean is over")
    rows: Literal["spread", "random"] = Field("spread", description="random is the control")
    tokens: Literal["key", "random"] = Field("key", description="random shuffles the entropies within a rollout")

    def select(self, batch, adv_BT, progress):  # type: ignore[no-untyped-def]
        """Rows with the widest spread of advantages."""
        keep = schedule("linear", self.rows_start, self.rows_end, progress)
        if keep == 1:
            return None
        chance_B = row_chance(batch)
        value_B = adv_BT[:, 0] if self.rows == "spread" else torch.zeros_like(chance_B)
        groups = torch.zeros_like(batch.group_ids_B) if self.scope == "batch" else batch.group_ids_B
        kept = []
        for group in groups.unique():
            rows = (groups == group).nonzero()[:, 0]
            count = max(1, round(keep * len(rows)))
            kept.append(rows[widest_spread(value_B[rows], count, chance_B[rows])])
        return torch.cat(kept).sort().values

    def _kept(self, batch, adv_BT, progress):  # type: ignore[no-untyped-def]
        keep = schedule("linear", self.tokens_start, self.tokens_end, progress)
        if keep == 1:
            return None
        entropy_BT = batch.entropy_BT if self.tokens == "key" else shuffled(batch.entropy_BT, batch)
        return select_topk(adv_BT.abs() * entropy_BT, batch.response_mask_BT, keep, whole_batch(adv_BT))

    def token_mask(self, batch, adv_BT, progress):  # type: ignore[no-untyped-def]
        """Tokens of the largest |A| H."""
        return self._kept(batch, adv_BT, progress) if self.denominator == "selected" else None

    def token_weight(self, batch, adv_BT, progress):  # type: ignore[no-untyped-def]
        """The same choice as weights 0 and 1, where all tokens are to be counted."""
        kept_BT = self._kept(batch, adv_BT, progress) if self.denominator == "all" else None
        return None if kept_BT is None else kept_BT.to(adv_BT.dtype)

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """Mean over the tokens that count."""
        return aggregate(loss_BT, batch.response_mask_BT, "token")
