"""The probe ``credit_agreement``: do the rewards by token agree with the hidden scores of ``pref_tokens``?

Of each of many written held-out responses, the correlation over its tokens, the end-of-text token (whose score is 0)
included. Credit that stands at the end alone has a negative one as a rule, since it has the sign of the whole response.
It is taken on the subject as it is before the training, where what judges the tokens comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.kinds.method import Measurement
from harness.kinds.objective.copies import training_copy
from harness.kinds.objective.rollouts import written_batch
from harness.kinds.objective.stages import masked
from harness.stats.intervals import mean_interval
from harness.subjects.subject import Subject
from harness.toolkit.verifiable import VerifiableTask

if TYPE_CHECKING:
    from harness.kinds.objective.actor_critic import ActorCritic

SEED = 7_004
LEAST_TOKENS = 3


def token_scores(subject: Subject, task: VerifiableTask, ids_BT: Tensor) -> Tensor:
    """What each token alone is worth, ``[B, T]``, where a response is worth the sum of its tokens."""
    tokenizer, (known_N, place_BT) = subject.text_tokenizer(), torch.unique(ids_BT, return_inverse=True)
    worth_N = [task.reward("", tokenizer.decode([i])) for i in known_N.tolist()]
    return torch.tensor(worth_N, dtype=torch.float64, device=ids_BT.device)[place_BT]


def correlations(one_BT: Tensor, other_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Pearson's correlation over each row's valid tokens, ``[B]`` float64.

    It is not a number where either is constant, or where there are fewer than three tokens.
    """
    count_B1 = mask_BT.sum(1, keepdim=True)
    centred = []
    for value_BT in (one_BT.double(), other_BT.double()):
        mean_B1 = masked(value_BT, mask_BT).sum(1, keepdim=True) / count_B1
        # Of the values themselves, since rounding may leave a constant some spread around its mean.
        differs_B1 = (masked(value_BT != value_BT[:, :1], mask_BT)).any(1, keepdim=True)
        centred.append(masked(value_BT - mean_B1, mask_BT).masked_fill(~differs_B1, torch.nan))
    one_BT, other_BT = centred
    found_B = (one_BT * other_BT).sum(1) / (one_BT.square().sum(1) * other_BT.square().sum(1)).sqrt()
    return found_B.masked_fill(count_B1[:, 0] < LEAST_TOKENS, torch.nan)


def ranks(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """How many of the row's other valid values lie below each, equal ones counting half, ``[B, T]``; 0 at padding."""
    above_BTT = (values_BT[..., None] > values_BT[:, None]).double()
    equal_BTT = (values_BT[..., None] == values_BT[:, None]).double()
    return masked(((above_BTT + equal_BTT / 2) * mask_BT[:, None]).sum(2) - 0.5, mask_BT)


@dataclass
class CreditAgreement:
    """Pearson's and Spearman's correlation of the method's credit with the truth, for a training with ``seed``."""

    method: ActorCritic
    seed: int
    responses: int = 256
    name: str = "credit_agreement"

    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """Means with intervals over the responses that have a correlation."""
        copied, task = training_copy(subject), self.method.task(held_out=True)
        batch = written_batch(copied, task, self.responses, 1, SEED)
        mask_BT, truth_BT = batch.response_mask_BT, token_scores(copied, task, batch.response_ids_BT)
        credit_BT = self.method.credit(self.method.judged(batch, copied, self.seed))
        found = {
            "credit_pearson": correlations(credit_BT, truth_BT, mask_BT),
            "credit_spearman": correlations(ranks(credit_BT, mask_BT), ranks(truth_BT, mask_BT), mask_BT),
        }
        estimates = [(metric, value_B[~value_B.isnan()].tolist()) for metric, value_B in found.items()]
        held = [(metric, mean_interval(values)) for metric, values in estimates if values]
        return [Measurement(metric, e.value, e.low, e.high, e.n, phase="written") for metric, e in held]
