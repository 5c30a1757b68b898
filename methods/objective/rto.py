"""RTO: a policy trained by DPO is a reward for every token, and PPO takes it.

1. pi_dpo is trained from the reference pi_ref on preference pairs: -log sigmoid(b [D(chosen) - D(rejected)]), D the sum
over tokens of log pi / pi_ref. 2. A sampled token earns clamp(beta_1 log pi_dpo / pi_ref, -c, c)
- beta_2 log pi_old / pi_ref, the last one beta_3 R besides, R the task's reward clamped to [-10, 10]. 3. GAE and PPO.
Without the clamp the first terms of a response sum to beta_1 log pi_dpo(y) / pi_ref(y).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pydantic import Field

from harness.catalog import method
from harness.kinds.objective import RolloutBatch
from harness.kinds.objective.actor_critic import ActorCritic
from harness.kinds.objective.copies import private_copy
from harness.kinds.objective.gae import outcome_at_end
from harness.kinds.objective.preferences import dpo_trained
from harness.kinds.objective.rollouts import chosen_logps, forward_responses
from harness.kinds.objective.samplers import GroupSampler
from harness.kinds.objective.stages import masked


@dataclass(frozen=True)
class Judges:
    """The two frozen models whose log ratio is a token's reward."""

    reference: Any
    guide: Any
    temperature: float

    @torch.no_grad()
    def judge(self, batch: RolloutBatch) -> RolloutBatch:
        """The batch with both models' log-probabilities."""
        reference_BT, guide_BT = (
            masked(
                chosen_logps(forward_responses(model, batch, self.temperature)[0], batch.response_ids_BT),
                batch.response_mask_BT,
            )
            for model in (self.reference, self.guide)
        )
        return replace(batch, reference_logps_BT=reference_BT, guide_logps_BT=guide_BT)


@dataclass(frozen=True)
class GuidedSampler:
    """Whole groups, judged."""

    groups: GroupSampler
    judges: Judges

    def sample(self, step: int, previous: RolloutBatch | None) -> tuple[RolloutBatch, int]:
        """The batch with what the judges say of it."""
        batch, generated = self.groups.sample(step, previous)
        return self.judges.judge(batch), generated


@method(
    id="rto",
    kind="objective",
    title="RTO: reinforced token optimization, DPO meets PPO",
    paper="arXiv:2404.18922",
    guarantee="approximate",
    baseline="grpo",
    needs="preference pairs, then reinforcement learning",
    claims=[
        {
            "metric": "AlpacaEval 2, length-controlled win rate",
            "value": 27.00,
            "against": "19.47 PPO, 17.40 DPO",
            "on": "Llama-3-8B",
        },
        {
            "metric": "Arena-Hard, style-controlled",
            "value": 20.3,
            "against": "16.2 PPO, 13.2 DPO",
            "on": "Llama-3-8B",
        },
    ],
    details={
        "beta_1, clip, beta_2, beta_3": "reference code: 0.05, 0.05, 0.01, 1; with these the clamp acts beyond 1 nat",
        "dpo_beta": "reconstruction: 0.1; steps, pairs and rate of the DPO run are ours",
        "pairs": "ours: two written responses to a problem, preferred by the task's reward (Bradley-Terry)",
        "reference": "the model before training, the same one in all three terms",
        "aggregation": "reference code: mean over responses of their token means",
        "placement": "ours: end gives the whole first term to the last token, the paper's sparse variant",
        "reward model": "none; R is the task's reward and is not normalised",
    },
)
class Rto(ActorCritic):
    """With beta_1=0 it is PPO with a penalty towards the reference; a batch without both models has neither term."""

    beta_1: float = Field(0.05, ge=0, description="factor on log pi_dpo / pi_ref")
    beta_2: float = Field(0.01, ge=0, description="factor on log pi_old / pi_ref, which is paid")
    beta_3: float = Field(1.0, ge=0, description="factor on the task's reward")
    token_clip: float = Field(0.05, gt=0, description="what a token can earn or lose by pi_dpo")
    placement: Literal["token", "end"] = Field("token", description="where the DPO reward stands")
    dpo_beta: float = Field(0.1, gt=0, description="inverse temperature of the DPO run")
    dpo_steps: int = Field(60, ge=0, description="steps of the DPO run")
    dpo_pairs: int = Field(16, ge=1, description="fresh pairs of each step")
    dpo_learning_rate: float = Field(3e-4, gt=0, description="of AdamW in the DPO run")

    def judges(self, subject, seed):  # type: ignore[no-untyped-def]
        """The model as it is now, and a copy that DPO has trained."""
        budget = (self.dpo_beta, self.dpo_steps, self.dpo_pairs, self.dpo_learning_rate)
        guide = dpo_trained(subject, self.task(), seed, *budget)
        return Judges(private_copy(subject).model.eval(), guide, self.temperature)

    def sampler(self, subject, seed):  # type: ignore[no-untyped-def]
        """Whole groups, judged by both models."""
        return GuidedSampler(GroupSampler(self, subject, seed), self.judges(subject, seed))

    def judged(self, batch, subject, seed):  # type: ignore[no-untyped-def]
        """The batch with both models' log-probabilities."""
        return self.judges(subject, seed).judge(batch)

    def credit(self, batch):  # type: ignore[no-untyped-def]
        """The first term, ``[B, T]``, 0 at padding."""
        mask_BT = batch.response_mask_BT
        dense_BT = masked(self.beta_1 * (batch.guide_logps_BT - batch.reference_logps_BT), mask_BT)
        dense_BT = dense_BT.clamp(-self.token_clip, self.token_clip)
        return outcome_at_end(dense_BT.sum(1), mask_BT) if self.placement == "end" else dense_BT

    def token_rewards(self, batch):  # type: ignore[no-untyped-def]
        """The three terms, ``[B, T]``, 0 at padding."""
        mask_BT = batch.response_mask_BT
        earned_BT = self.beta_3 * outcome_at_end(batch.rewards_B.clamp(-10, 10), mask_BT)
        if batch.guide_logps_BT is None or batch.reference_logps_BT is None:
            return earned_BT
        paid_BT = masked(self.beta_2 * (batch.old_logps_BT - batch.reference_logps_BT), mask_BT)
        return earned_BT + self.credit(batch) - paid_BT
