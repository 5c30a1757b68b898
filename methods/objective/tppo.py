"""T-PPO: generate in windows and train on unfinished responses, so that no slot waits for the longest one.

Every update each slot writes up to ``window`` tokens. The policy is trained on the tokens of this window, the critic
on the responses that are done, with their full returns. Advantages of a response that goes on end in the value before
its last token in place of the unknown one after it (EGAE): V(s_l) := V(s_{l-1}), so with gamma = 1 the last error is 0
and for lambda = 1 A_t = V(s_{l-1}) - V(s_t). Done responses have ordinary GAE with the reward at their end.
"""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from harness.catalog import method
from harness.kinds.objective import aggregate
from harness.kinds.objective.actor_critic import ActorCritic
from harness.kinds.objective.gae import clipped_value_loss, gae, outcome_at_end, whiten
from harness.kinds.objective.windows import WindowSampler


@method(
    id="tppo",
    kind="objective",
    title="T-PPO: truncated proximal policy optimization",
    paper="arXiv:2506.15050",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    claims=[
        {
            "metric": "training efficiency",
            "value": 2.5,
            "against": "PPO (up to)",
            "on": "a 32B base model, AIME 2024",
        },
    ],
    details={
        "formulas": "abstract and public digests; the paper was not read in full and has no released code",
        "window": "reconstruction: a quarter of max_new_tokens, which it has to divide",
        "ratio": "against the policy of the window's start, which is the law that drew its tokens",
        "value targets": "done responses only; reconstruction: lambda 1, mean over their tokens, 0 where none is done",
        "value warm-up": "reconstruction: the policy rests meanwhile; so does the trunk, by detach_critic",
        "cache": "reconstruction: built again for each window",
        "groups": "ours: a slot is one response, so the share of groups with equal rewards says nothing here",
    },
)
class Tppo(ActorCritic):
    """With window=max_new_tokens and value_warmup=0 it is ppo_gae, but for returns with lambda 1."""

    detach_critic: bool = Field(True, description="whether the value loss trains the head alone")
    window: int = Field(8, ge=1, description="tokens that a slot writes in one update")
    value_warmup: float = Field(0.1, ge=0, lt=1, description="part of the training in which the policy rests")
    aggregation: Literal["seq", "token"] = Field("token", description="mean over responses, or over all tokens")

    def sampler(self, subject, seed):  # type: ignore[no-untyped-def]
        """Windows of slots."""
        return WindowSampler(self, subject, seed, min(self.window, self.max_new_tokens))

    def bootstrap(self, batch):  # type: ignore[no-untyped-def]
        """The value before the last token of what goes on, 0 for what is done, ``[B]``."""
        if batch.values_BT is None:
            return "zero"
        last_BT = outcome_at_end(torch.ones_like(batch.rewards_B), batch.response_mask_BT).to(batch.values_BT)
        return (last_BT * batch.values_BT).sum(1) * ~batch.over_B

    def advantage(self, batch):  # type: ignore[no-untyped-def]
        """Whitened over the tokens of this window."""
        return whiten(self.estimates(batch)[0], batch.new_BT)

    def token_weight(self, batch, adv_BT, progress):  # type: ignore[no-untyped-def]
        """0 in the warm-up."""
        return torch.zeros_like(adv_BT) if progress < self.value_warmup else None

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """Over the tokens of this window."""
        return aggregate(loss_BT, batch.new_BT, self.aggregation)

    def value_loss(self, values_BT, batch):  # type: ignore[no-untyped-def]
        """Squared error against the full returns, over all tokens of the responses that are done."""
        mask_BT = batch.response_mask_BT & batch.over_B[:, None]
        _, returns_BT = gae(self.token_rewards(batch), batch.values_BT, mask_BT, self.gamma, 1.0)
        return self.value_weight * clipped_value_loss(values_BT, batch.values_BT, returns_BT, mask_BT, self.value_clip)

    def probes(self):  # type: ignore[no-untyped-def]
        """The kind's audit, of the policy's loss as it is after the warm-up."""
        return super(Tppo, replace(self, value_warmup=0.0)).probes()
