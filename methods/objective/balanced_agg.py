"""Balanced Aggregation: token means within each sign of the advantage, mixed by how many responses have that sign.

For each group of G responses with S+ = {A_i > 0} and S- = {A_i < 0}: L+ is the sum of the token losses of S+ over its
tokens, L- likewise; L_g = (|S+| / G) L+ + (|S-| / G) L-; the loss is the mean over groups. Token aggregation lets the
longer sign dominate, sequence aggregation halves the weight of each token in a response twice as long; this does
neither.
"""

from pydantic import Field

from harness.catalog import method
from harness.kinds.objective import ObjectiveMethod, response_advantage
from harness.kinds.objective.balance import balanced


@method(
    id="balanced_agg",
    kind="objective",
    title="Balanced Aggregation: understanding and fixing aggregation bias in GRPO",
    paper="arXiv:2605.04077",
    guarantee="approximate",
    baseline="grpo",
    needs="reinforcement learning",
    claims=[
        {
            "metric": "average accuracy of six benchmarks at the last step",
            "value": 0.3424,
            "against": "0.3446 sequence, 0.3364 token aggregation",
            "on": "Qwen2.5-Math-7B, DAPO-17k (reported second-hand)",
        },
        {
            "metric": "average accuracy of six benchmarks at the last step",
            "value": 0.3319,
            "against": "0.3172 sequence, 0.3292 token aggregation",
            "on": "Qwen2.5-Math-7B, Polaris (reported second-hand)",
        },
        {
            "metric": "average accuracy of six benchmarks at the last step",
            "value": 0.4695,
            "against": "0.4481 sequence, 0.4360 token aggregation",
            "on": "Qwen3-1.7B, DAPO-17k (reported second-hand)",
        },
        {
            "metric": "average accuracy of six benchmarks at the last step",
            "value": 0.4640,
            "against": "0.4614 sequence, 0.4349 token aggregation",
            "on": "Qwen3-1.7B, Polaris (reported second-hand)",
        },
    ],
    details={
        "weights |S+|/G and |S-|/G": "stated for binary rewards by public digests; the paper was not read in full",
        "mean over groups": "reconstruction: over all groups, so that the step size does not jump",
        "advantage 0 in a mixed group": "reconstruction: in neither set, still counted in G",
        "empty response": "reconstruction: no tokens, still counted in its set and in G",
        "both signs in one response": "refused",
        "everything but the aggregation": "as grpo",
    },
)
class BalancedAgg(ObjectiveMethod):
    """GRPO with its aggregation replaced; the published rule has no parameters."""

    skip_zero_groups: bool = Field(False, description="divide by the groups with a non-zero advantage only")

    def aggregate(self, loss_BT, batch, adv_BT):  # type: ignore[no-untyped-def]
        """Balanced within each group of the minibatch."""
        adv_B = response_advantage(adv_BT, batch.response_mask_BT)
        return balanced(loss_BT, batch.response_mask_BT, adv_B, batch.group_ids_B, self.skip_zero_groups)
