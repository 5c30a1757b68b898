"""The whole cache: every token of the text stays. The reference row of every pruning table."""

from harness.catalog import method
from harness.kinds.pruning import PruningMethod


@method(
    id="kv_full",
    kind="pruning",
    title="Full cache",
    guarantee="exact",
    baseline="kv_full",
    identity={},
    details={"cache": "ours: preallocated buffers, nothing evicted"},
)
class KvFull(PruningMethod):
    """Keeps all slots."""
