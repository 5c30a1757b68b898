"""What objectives with a critic share: the value head, rewards by token, advantages from values, the value loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from harness.kinds.method import Probe
from harness.kinds.objective.base import ObjectiveMethod
from harness.kinds.objective.batch import RolloutBatch
from harness.kinds.objective.credit_agreement import CreditAgreement
from harness.kinds.objective.gae import Bootstrap, clipped_value_loss, gae, outcome_at_end, whiten
from harness.subjects.subject import Subject


class ValueHead(nn.Module):
    """A linear map of the policy's last states to values, 0 at first. ``detach`` keeps its gradient off the trunk."""

    def __init__(self, subject: Subject, detach: bool) -> None:
        super().__init__()
        weight = subject.model.get_output_embeddings().weight
        self.linear = nn.Linear(weight.shape[1], 1, device=weight.device, dtype=weight.dtype)
        self.detach = detach
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Values ``[B, T]``, float32 at least."""
        values_BT: Tensor = self.linear(hidden_BTD.detach() if self.detach else hidden_BTD)[..., 0]
        return values_BT if values_BT.dtype == torch.float64 else values_BT.float()


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ActorCritic(ObjectiveMethod):
    """Whitened GAE advantages, the clipped surrogate, the mean over responses of their token means, and a value loss.

    A batch without values (none has read the critic) has values 0.
    """

    centred: ClassVar[bool] = False

    gamma: float = Field(1.0, gt=0, le=1, description="discount by token")
    lam: float = Field(0.95, ge=0, le=1, description="of GAE: 0 trusts the critic, 1 trusts the returns")
    value_clip: float = Field(0.2, gt=0, description="values may move so far from the old ones")
    value_weight: float = Field(1.0, ge=0, description="factor of the value loss")
    detach_critic: bool = Field(False, description="whether the value loss trains the head alone")

    def critic(self, subject: Subject) -> nn.Module | None:
        """One linear head on the policy's states."""
        return ValueHead(subject, self.detach_critic)

    def token_rewards(self, batch: RolloutBatch) -> Tensor:
        """Rewards ``[B, T]``: the outcome on the last token."""
        return outcome_at_end(batch.rewards_B, batch.response_mask_BT)

    def credit(self, batch: RolloutBatch) -> Tensor:
        """What of the token rewards is meant to say which token was good, ``[B, T]``."""
        return self.token_rewards(batch)

    def judged(self, batch: RolloutBatch, subject: Subject, seed: int) -> RolloutBatch:
        """The batch with what ``credit`` reads of models that a training of the subject would make; here of none."""
        return batch

    def prior_probes(self, seed: int) -> Iterable[Probe]:
        """``credit_agreement`` where the truth is known."""
        return (CreditAgreement(self, seed),) if self.problems == "pref_tokens" else ()

    def bootstrap(self, batch: RolloutBatch) -> Bootstrap:
        """The value after the last token."""
        return "zero"

    def estimates(self, batch: RolloutBatch) -> tuple[Tensor, Tensor]:
        """Advantages and returns, before whitening."""
        rewards_BT = self.token_rewards(batch)
        values_BT = torch.zeros_like(rewards_BT) if batch.values_BT is None else batch.values_BT
        return gae(rewards_BT, values_BT, batch.response_mask_BT, self.gamma, self.lam, self.bootstrap(batch))

    def advantage(self, batch: RolloutBatch) -> Tensor:
        """Whitened over the tokens of the batch."""
        return whiten(self.estimates(batch)[0], batch.response_mask_BT)

    def value_loss(self, values_BT: Tensor, batch: RolloutBatch) -> Tensor:
        """Squared error against the returns, clipped around the old values."""
        assert batch.values_BT is not None
        _, returns_BT = self.estimates(batch)
        return self.value_weight * clipped_value_loss(
            values_BT, batch.values_BT, returns_BT, batch.response_mask_BT, self.value_clip
        )
