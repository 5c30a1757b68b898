"""PPO with a critic: advantages by token from generalized advantage estimation.

d_t = r_t + gamma V_{t+1} - V_t, A_t = d_t + gamma lam A_{t+1}, with the reward on the last token and V = 0 after it;
returns A + V, then A is whitened over the batch. The policy has the clipped surrogate; the critic, a linear head on
the policy's states, max((V - ret)^2, (clip(V, V_old - c, V_old + c) - ret)^2) / 2.
"""

from typing import Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.objective import aggregate
from harness.kinds.objective.actor_critic import ActorCritic


@method(
    id="ppo_gae",
    kind="objective",
    title="PPO with generalized advantage estimation",
    paper="arXiv:1707.06347",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    details={
        "gae": "arXiv:1506.02438; gamma 1 and lambda 0.95, as for language models",
        "whitening": "as one library: unbiased variance over the valid tokens of the batch, after the returns are made",
        "cut response": "as one library: the value after its last token is 0 too (tppo differs)",
        "critic": "ours: a linear head that starts at 0 and shares the trunk and the learning rate",
        "kl": "ours: no penalty, as for the other objectives here",
        "aggregation": "token, as the libraries' PPO has it; seq on request",
    },
)
class PpoGae(ActorCritic):
    """The yardstick of all objectives with a critic."""

    aggregation: Literal["seq", "token"] = Field("token", description="mean over responses, or over all tokens")

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """Mean over all tokens, or over responses of their token means."""
        return aggregate(loss_BT, batch.response_mask_BT, self.aggregation)
