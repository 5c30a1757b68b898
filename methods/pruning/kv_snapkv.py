"""SnapKV: the prompt's last queries vote for the tokens that decoding will need.

score_j = avgpool_kernel(mean over the last W queries i of softmax(q_i k / sqrt(d))_j) over the slots j before the
window, averaged over each key/value head's query heads; the window itself is always kept. Applied once, after the
prompt.
"""

from harness.catalog import method
from harness.kinds.pruning import ObservationMethod


@method(
    id="kv_snapkv",
    kind="pruning",
    title="SnapKV: prompt compression by the last queries' attention",
    paper="arXiv:2404.14469",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    claims=[
        {
            "metric": "speedup_decode",
            "value": 3.6,
            "against": "full cache",
            "on": "inputs of 16K tokens (abstract)",
        }
    ],
    details={
        "window": "reference code (32 to 64)",
        "kernel": "reference code (5 or 7)",
        "pooling": "mean over window and group (the release: sum, same ranking), zeros beyond the ends",
        "budget": "the window counts; with K < W the last K stay",
    },
)
class KvSnapKV(ObservationMethod):
    """Observation window of ``window`` queries, average pooling of ``kernel`` slots."""
