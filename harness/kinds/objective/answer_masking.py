"""The probe ``answer_masking``: does the answer hang on the tokens that an objective credits?

The model answers held-out problems, sampling as in training. Then a share of the tokens between question and answer is
taken out of attention, so that no token reads them, and the same model predicts the answer once more. Tokens are taken
by most and by least credit, at random, and by other analyses: the attention they receive, attention rollout (arXiv
2005.00928) to the tokens that predict the answer, and the norm of the gradient of the answer's log-probability by their
embedding.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.kinds.method import Measurement
from harness.kinds.objective.base import ObjectiveMethod
from harness.kinds.objective.batch import RolloutBatch
from harness.kinds.objective.rollouts import chosen_logps, sampled_batch
from harness.kinds.objective.samplers import attention_by_layer, with_old_policy
from harness.kinds.objective.stages import masked
from harness.kinds.objective.tokens import every_row, select_topk
from harness.stats.intervals import mean_interval
from harness.subjects.subject import Subject

SEED = 7_003
RANDOM = "random"
OfTokens = Callable[[RolloutBatch], Tensor]


def reasoning_mask(mask_BT: Tensor, answer_BT: Tensor) -> Tensor:
    """The tokens that may be taken out, ``[B, T]``: those before the answer but the last of them; none without one.

    The last one predicts the answer, from its own state: hiding it from others would hide nothing from itself.
    """
    place_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    return mask_BT & answer_BT.any(1, keepdim=True) & (place_T < answer_BT.long().argmax(1, keepdim=True) - 1)


def predictors(answer_BT: Tensor) -> Tensor:
    """The response tokens whose states predict the answer's, ``[B, T]``."""
    return torch.nn.functional.pad(answer_BT[:, 1:], (0, 1))


def prediction(model: Any, batch: RolloutBatch, hidden_BT: Tensor, embedded_BND: Tensor | None = None) -> Tensor:
    """Log-probabilities ``[B, T, V]`` where nobody reads the tokens in ``hidden_BT``; all keep their positions."""
    ids_BN = torch.cat([batch.prompt_ids_BP, batch.response_ids_BT], 1)
    there_BN = torch.cat([batch.prompt_mask_BP, torch.ones_like(hidden_BT)], 1)
    read_BN = torch.cat([batch.prompt_mask_BP, ~hidden_BT], 1)
    text = {"input_ids": ids_BN[:, :-1]} if embedded_BND is None else {"inputs_embeds": embedded_BND[:, :-1]}
    logits_BTV = model(
        **text,
        attention_mask=read_BN[:, :-1].long(),
        position_ids=(there_BN.cumsum(1) - 1).clamp(min=0)[:, :-1],
        use_cache=False,
        logits_to_keep=hidden_BT.shape[1],
    ).logits
    logps_BTV: Tensor = logits_BTV.float().log_softmax(-1)
    return logps_BTV


def received(attention_BNN: Tensor, mask_BT: Tensor) -> Tensor:
    """The attention that each response token gets from the later ones, ``[B, T]``."""
    width = mask_BT.shape[1]
    later_BTT = attention_BNN[:, -width:, -width:].tril(-1)
    return masked(later_BTT, mask_BT[..., None].expand_as(later_BTT)).sum(1)


def rollout(layers_LBNN: Tensor, ends_BT: Tensor) -> Tensor:
    """What of each response token arrives at these, ``[B, T]``: layers ``(A + I) / 2`` multiplied."""
    unit_NN = torch.eye(layers_LBNN.shape[-1], dtype=layers_LBNN.dtype, device=layers_LBNN.device)
    width = ends_BT.shape[1]
    arrives_BN = torch.nn.functional.pad(ends_BT.to(layers_LBNN.dtype), (len(unit_NN) - width, 0))
    for layer_BNN in layers_LBNN.flip(0):
        arrives_BN = (arrives_BN[:, None] @ ((layer_BNN + unit_NN) / 2))[:, 0]
    return arrives_BN[:, -width:]


def saliency(model: Any, batch: RolloutBatch, answer_BT: Tensor) -> Tensor:
    """Norm of the gradient of the answer's log-probability by each response token's embedding, ``[B, T]``."""
    ids_BN = torch.cat([batch.prompt_ids_BP, batch.response_ids_BT], 1)
    with torch.enable_grad():
        embedded_BND = model.get_input_embeddings()(ids_BN).detach().requires_grad_()
        logps_BTV = prediction(model, batch, torch.zeros_like(answer_BT), embedded_BND)
        answer = masked(chosen_logps(logps_BTV, batch.response_ids_BT), answer_BT).sum()
        (slope_BND,) = torch.autograd.grad(answer, embedded_BND)
    norm_BN: Tensor = slope_BND.float().norm(dim=-1)
    return norm_BN[:, -answer_BT.shape[1] :]


@dataclass
class AnswerMasking:
    """How often the answer changes, and how much less likely it becomes; ``credit`` and ``answer`` are ``[B, T]``.

    ``answer`` marks the answer's tokens; responses without an answer, or with fewer than two tokens that may be taken
    out, are left out. The method ``requires`` attention.
    """

    method: ObjectiveMethod
    credit: OfTokens
    answer: OfTokens
    problems: int = 256
    share: float = 0.2
    name: str = "answer_masking"

    @torch.no_grad()
    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """Means over responses with their intervals; the phase says which tokens were taken."""
        batch = self._answered(subject)
        batch = batch.rows((self._reasoning(batch).sum(1) >= 2).nonzero()[:, 0])
        if not batch.size:
            return []
        effects = self.effects(subject.model, batch, self._rankings(subject.model, batch))
        changed = {name: found[0].float() for name, found in effects.items()}
        values = [("answer_change_share", name, value_B) for name, value_B in changed.items()]
        values += [("answer_logp_drop", name, drop_B) for name, (_, drop_B) in effects.items()]
        values += [
            ("answer_changes_over_random", name, value_B - changed[RANDOM])
            for name, value_B in changed.items()
            if name != RANDOM
        ]
        estimates = [(metric, name, mean_interval(value_B.tolist())) for metric, name, value_B in values]
        return [Measurement(metric, e.value, e.low, e.high, e.n, phase=name) for metric, name, e in estimates]

    def effects(
        self, model: Any, batch: RolloutBatch, rankings: Mapping[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Of each ranking ``[B, T]``: whether the best guess at an answer token changed, and the loss in nats, ``[B]``.

        The ``share`` of each response's tokens that rank highest is taken out, rounded up.
        """
        answer_BT, reasoning_BT = self.answer(batch), self._reasoning(batch)
        before_BTV = prediction(model, batch, torch.zeros_like(reasoning_BT))
        found = {}
        for name, score_BT in rankings.items():
            taken_BT = select_topk(score_BT, reasoning_BT, self.share, every_row(reasoning_BT))
            after_BTV = prediction(model, batch, taken_BT)
            drop_BT = chosen_logps(before_BTV - after_BTV, batch.response_ids_BT)
            changed_BT = before_BTV.argmax(-1) != after_BTV.argmax(-1)
            found[name] = (changed_BT & answer_BT).any(1), masked(drop_BT, answer_BT).sum(1)
        return found

    def _answered(self, subject: Subject) -> RolloutBatch:
        task, rng = self.method.task(held_out=True), random.Random(SEED)
        asked = [task.draw(rng) for _ in range(self.problems)]
        single = replace(self.method.sampling(None), group_size=1)
        batch = sampled_batch(subject, task, asked, single, torch.Generator(subject.device).manual_seed(SEED))
        return with_old_policy(batch, subject.model, self.method)

    def _reasoning(self, batch: RolloutBatch) -> Tensor:
        return reasoning_mask(batch.response_mask_BT, self.answer(batch))

    def _rankings(self, model: Any, batch: RolloutBatch) -> dict[str, Tensor]:
        assert batch.attention_BNN is not None
        credit_BT, answer_BT = self.credit(batch), self.answer(batch)
        chance_BT = torch.rand(answer_BT.shape, generator=torch.Generator().manual_seed(SEED))
        return {
            "most credit": credit_BT,
            "least credit": -credit_BT,
            RANDOM: chance_BT.to(answer_BT.device),
            "attention received": received(batch.attention_BNN, batch.response_mask_BT),
            "attention rollout": rollout(attention_by_layer(model, batch), predictors(answer_BT)),
            "gradient": saliency(model, batch, answer_BT),
        }
