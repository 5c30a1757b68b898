"""TOVA: the latest query decides, at every step, which tokens the next one may see.

score_j = softmax(q_last k / sqrt(d))_j, averaged over all heads, so that a layer has one set; the budget found at the
prompt's end is held while decoding, by the query of each step. The last token always stays.
"""

from torch import Tensor, inf

from harness.catalog import method
from harness.kinds.pruning import EvictionMethod, LayerView, window_attention


@method(
    id="kv_tova",
    kind="pruning",
    title="TOVA: token omission via attention",
    paper="arXiv:2401.06104",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    details={
        "set": "paper: one set a layer, from the mean over heads",
        "prompt": "evicted at once at its end, by its last query; the paper evicts while reading it",
        "drafted tokens": "ours: the last accepted one decides",
    },
)
class KvTova(EvictionMethod):
    """Score: the last query's attention."""

    while_decoding = True

    def scores(self, view: LayerView) -> Tensor:
        """``[B, H, N]``, the same for all heads, infinite for the last slot."""
        row_BN = window_attention(view, 1)[:, :, 0].mean(1)
        row_BN[:, -1] = inf
        return row_BN[:, None].expand(-1, view.keys_BHND.shape[1], -1)
