"""PyramidKV: SnapKV's scores, with budgets that shrink from the first layer to the last.

With K the mean budget and W the window, layer l of L keeps W plus a number that falls linearly from
b_max = 2 (K - W) - b_min to b_min = (K - W) / beta. Where b_max exceeds what the prompt has, it is cut and b_min
raised, so that the total stays L K up to rounding.
"""

from pydantic import Field

from harness.catalog import method
from harness.kinds.pruning import LayerView, ObservationMethod, rank_slots


def layer_budgets(keep: int, length: int, window: int, beta: float, layers: int) -> list[int]:
    """Slots that each layer keeps of ``length``; their sum is ``layers * keep``, whatever rounding does."""
    if layers == 1:
        return [keep]
    window = min(window, keep)
    spread = keep - window
    low = spread / beta
    high = 2 * spread - low
    if high > length - window:
        high = length - window
        low = 2 * spread - high
    exact = [window + high - (high - low) * layer / (layers - 1) for layer in range(layers)]
    budgets, carried = [], 0.0
    for value in exact:
        carried += value
        budgets.append(round(carried) - sum(budgets))
    return budgets


@method(
    id="kv_pyramid",
    kind="pruning",
    title="PyramidKV: larger budgets for lower layers",
    paper="arXiv:2406.02069",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    claims=[
        {
            "metric": "part of the cache kept at full-cache quality",
            "value": 0.12,
            "against": "full cache",
            "on": "LongBench, LLaMA-3-8B and Mistral-7B (abstract)",
        }
    ],
    details={
        "beta": "reference code: 20",
        "rounding": "ours: running sums are rounded, so that the layers' budgets add up exactly",
        "one layer": "keeps the mean budget",
    },
)
class KvPyramid(ObservationMethod):
    """SnapKV with a budget a layer."""

    beta: float = Field(20.0, ge=1, description="how much smaller the last layer's budget is; 1: the same everywhere")

    def evict(self, view: LayerView):  # type: ignore[no-untyped-def]
        """The layer's own number of best slots."""
        if self.unlimited:
            return None
        means, lengths = self.budget(view.prompt_B).tolist(), view.prompt_B.tolist()
        rows = zip(means, lengths, strict=True)
        keeps = [layer_budgets(k, n, self.window, self.beta, view.num_layers)[view.layer] for k, n in rows]
        return rank_slots(self.scores(view), view.valid_BHN, view.prompt_B.new_tensor(keeps))
