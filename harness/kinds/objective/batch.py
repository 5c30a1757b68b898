"""What every objective reads: a frozen batch of sampled responses with their rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, kw_only=True)
class RolloutBatch:
    """``B`` responses of at most ``T`` tokens to prompts of at most ``P`` tokens; no stage writes to it.

    Index convention: position ``t`` of every ``_BT`` field belongs to *predicting* ``response_ids_BT[:, t]``, so what
    a model says there is taken from its output at input position ``P + t - 1``.

    ``prompt_ids_BP`` and ``prompt_mask_BP`` are padded on the left, ``response_ids_BT`` on the right;
    ``response_mask_BT`` is true for generated tokens, the end-of-text token included. ``behavior_logps_BT`` are
    log-probabilities (nats) under the law that drew the tokens; ``old_logps_BT`` and ``entropy_BT`` are the policy's
    at the start of the update, at the sampling temperature. ``rewards_B`` are outcome rewards, ``group_ids_B`` says
    which prompt a response answers (groups need be neither contiguous nor of equal size), ``finished_B`` is false
    where the length limit cut a response.

    What only some objectives read (their ``requires``) is None for the others: ``hidden_BTD``, the old policy's last
    states, which its output layer turns into the prediction of each token; ``logps_BTV``, its log-probabilities of
    the whole vocabulary; ``attention_BNN``, its attention maps, the mean over heads and over the layers the objective
    names, with a row for each of the ``N = P + T`` input tokens; ``values_BT``, the critic's values before each token;
    ``reference_logps_BT`` and ``guide_logps_BT``, log-probabilities of two other, frozen models.

    Where responses are generated over several updates, ``fresh_BT`` is true for the tokens of this one, and ``done_B``
    false for responses that go on (their reward is 0 so far); None means all.
    """

    prompt_ids_BP: Tensor
    prompt_mask_BP: Tensor
    response_ids_BT: Tensor
    response_mask_BT: Tensor
    behavior_logps_BT: Tensor
    old_logps_BT: Tensor
    entropy_BT: Tensor
    rewards_B: Tensor
    group_ids_B: Tensor
    finished_B: Tensor
    hidden_BTD: Tensor | None = None
    logps_BTV: Tensor | None = None
    attention_BNN: Tensor | None = None
    values_BT: Tensor | None = None
    reference_logps_BT: Tensor | None = None
    guide_logps_BT: Tensor | None = None
    fresh_BT: Tensor | None = None
    done_B: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of responses."""
        return len(self.rewards_B)

    @property
    def lengths_B(self) -> Tensor:
        """Tokens of each response."""
        return self.response_mask_BT.sum(1)

    @property
    def new_BT(self) -> Tensor:
        """Tokens that were generated for this batch."""
        return self.response_mask_BT if self.fresh_BT is None else self.response_mask_BT & self.fresh_BT

    @property
    def over_B(self) -> Tensor:
        """Responses that are done."""
        return torch.ones_like(self.finished_B) if self.done_B is None else self.done_B

    def held(self) -> dict[str, Tensor]:
        """The fields that are there, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def rows(self, index_N: Tensor) -> RolloutBatch:
        """The batch of these responses."""
        return replace(self, **{name: value[index_N] for name, value in self.held().items()})

    def minibatches(self, count: int) -> list[Tensor]:
        """Row indices of ``count`` parts with whole groups, in the order of the group ids."""
        parts = torch.unique(self.group_ids_B).tensor_split(count)
        return [torch.isin(self.group_ids_B, part).nonzero()[:, 0] for part in parts if len(part)]


def joined(parts: Sequence[RolloutBatch]) -> RolloutBatch:
    """One batch of several that hold no old policy's states, laws or attention yet; groups of two parts stay two."""
    prompt = max(part.prompt_ids_BP.shape[1] for part in parts)
    width = max(part.response_ids_BT.shape[1] for part in parts)

    def fitted(name: str, value: Tensor) -> Tensor:
        if name.endswith("_BP"):
            return pad(value, (prompt - value.shape[1], 0))
        return pad(value, (0, width - value.shape[1])) if name.endswith("_BT") else value

    held: dict[str, list[Tensor]] = {}
    first = 0
    for part in parts:
        for name, value in part.held().items():
            held.setdefault(name, []).append(fitted(name, value + first if name == "group_ids_B" else value))
        first += int(part.group_ids_B.max()) + 1 if part.size else 0
    return RolloutBatch(**{name: torch.cat(values) for name, values in held.items()})
