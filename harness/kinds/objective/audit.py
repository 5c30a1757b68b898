"""The probe ``gradient_audit``: what an objective's gradient weighs, on written responses with a length gap.

The responses are the same for every model and objective; right ones are shorter than wrong ones. All figures are
taken at the snapshot, where every ratio is 1, and hold without any training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.kinds.method import Measurement
from harness.kinds.objective.base import ObjectiveMethod
from harness.kinds.objective.batch import RolloutBatch
from harness.kinds.objective.copies import training_copy
from harness.kinds.objective.frozen import Frozen, frozen_loss, frozen_stages
from harness.kinds.objective.rollouts import chosen_logps, forward_responses
from harness.kinds.objective.stages import aggregate, clipped_surrogate, effective_tokens, group_normalize, ratios
from harness.kinds.objective.update import frozen_batch
from harness.subjects.subject import Subject

PHASE = "gradient_audit"


def flat_gradient(loss: Tensor, model: Any) -> Tensor:
    """The gradient over all parameters as one float64 vector."""
    held = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, held, retain_graph=True, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).double().flatten() for p, g in zip(held, found, strict=True)]
    )


def gradient_noise(method: ObjectiveMethod, frozen: Frozen, logp_BT: Tensor, model: Any) -> float | None:
    """Variance between the gradients of single groups over the squared norm of their mean; None without two groups or
    without a gradient.

    The simple noise scale of McCandlish et al. (arXiv 1812.06162), in groups; those that no row was selected from are
    left out.
    """
    groups = frozen.batch.minibatches(len(torch.unique(frozen.batch.group_ids_B)))
    total: Tensor | float = 0.0
    squares = 0.0
    for index_N in groups:  # one at a time: a gradient is as large as the model
        gradient = flat_gradient(frozen_loss(method, frozen.part(index_N), logp_BT), model)
        total, squares = total + gradient, squares + float(gradient.square().sum())
    count, mean_squared = len(groups), float(torch.as_tensor(total).square().sum()) / len(groups) ** 2
    if count < 2 or mean_squared == 0:
        return None
    return (squares - count * mean_squared) / (count - 1) / mean_squared


def token_baseline(logp_BT: Tensor, batch: RolloutBatch) -> Tensor:
    """The yardstick: group-normalised advantages, clipped surrogate, mean over all tokens."""
    adv_BT = group_normalize(batch.rewards_B, batch.group_ids_B)[:, None].expand_as(logp_BT)
    loss_BT = clipped_surrogate(ratios(logp_BT, batch.old_logps_BT), adv_BT, 0.2, 0.2)
    return aggregate(loss_BT, batch.response_mask_BT, "token")


@dataclass
class GradientAudit:
    """Cosine and norm against token aggregation, the signs' shares, and how many tokens carry the gradient and its
    noise."""

    method: ObjectiveMethod
    name: str = PHASE

    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """The figures on this subject's weights; the subject is not touched."""
        copied = training_copy(subject)
        batch = frozen_batch(self.method, copied)
        logps_BTV, _ = forward_responses(copied.model, batch, self.method.temperature)
        logp_BT = chosen_logps(logps_BTV, batch.response_ids_BT)
        frozen = frozen_stages(self.method, batch, 0.0)
        loss = frozen_loss(self.method, frozen, logp_BT)
        figures = self._shares(loss, logp_BT, batch)
        noise = gradient_noise(self.method, frozen, logp_BT, copied.model)
        figures |= {} if noise is None else {"gradient_noise": noise}
        ours = flat_gradient(loss, copied.model)
        token = flat_gradient(token_baseline(logp_BT, batch), copied.model)
        figures |= {
            "cosine_to_token": float(torch.nn.functional.cosine_similarity(ours, token, dim=0)),
            "norm_ratio_to_token": float(ours.norm() / token.norm()),
        }
        return [Measurement(name, value, n=batch.size, phase=PHASE) for name, value in figures.items()]

    @staticmethod
    def _shares(loss: Tensor, logp_BT: Tensor, batch: RolloutBatch) -> dict[str, float]:
        """Figures of the loss's derivative by each token's log-probability."""
        (mass_BT,) = torch.autograd.grad(loss, logp_BT, retain_graph=True)
        right_B, length_B = batch.rewards_B > 0, batch.lengths_B.float()
        by_response_B = mass_BT.abs().sum(1)
        return {
            "positive_gradient_share": float(by_response_B[right_B].sum() / by_response_B.sum()),
            "effective_tokens": float(effective_tokens(mass_BT)),
            "snapshot_loss": float(loss.detach()),
            "length_gap": float(length_B[~right_B].mean() - length_B[right_B].mean()),
        }
