"""Oracle top-k: each head of each query reads the slots with its highest logits.

The upper bound of selection at a budget: finding the slots reads every key, so nothing is gained but the bound.
"""

from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import QueryView, SelectionMethod, group_queries, logits


@method(
    id="kv_oracle_topk",
    kind="pruning",
    title="Oracle: the highest logits of each head",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    details={"prompt": "read densely", "selection": "ours: the true logits, at the cost of all keys"},
)
class KvOracleTopk(SelectionMethod):
    """Score: the logit."""

    def relevance(self, view: QueryView, artifact: object) -> Tensor:
        """``[B, H, T, N]``."""
        return logits(group_queries(view), view.keys_BGND).flatten(1, 2)
