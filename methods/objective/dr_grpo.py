"""Dr. GRPO: GRPO without its two divisions, by the group's deviation and by a response's own length.

A_i = R_i - mean_g; loss = sum_i sum_t l_it / (N L_max) with GRPO's clipped l_it. Long wrong responses are no longer
punished less per token, nor groups that are nearly all right or wrong weighted up.
"""

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod, aggregate, group_normalize


@method(
    id="dr_grpo",
    kind="objective",
    title="Dr. GRPO: GRPO done right",
    paper="arXiv:2503.20783",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    details={
        "L_max": "max_new_tokens, as the common libraries have it",
        "clip": "as grpo",
        "kl": "paper: none",
    },
)
class DrGrpo(ObjectiveMethod):
    """The published rule has no parameters of its own."""

    def advantage(self, batch):  # type: ignore[no-untyped-def]
        """The centred reward, ``[B, T]``."""
        adv_B = group_normalize(batch.rewards_B, batch.group_ids_B, "none")
        return adv_B[:, None].expand(batch.response_mask_BT.shape)

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """The sum over tokens divided by one constant."""
        return aggregate(loss_BT, batch.response_mask_BT, "const", l_max=self.max_new_tokens)
