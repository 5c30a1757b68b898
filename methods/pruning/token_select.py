"""TokenSelect: the heads vote softly for single tokens, and a layer reads one set.

s_hj = q_h k_j over the tokens between the first ``num_sinks`` and the last ``window``; c_j = sum_h softmax_j(s_h);
the highest c_j are read, with sinks and window, by all heads. While the queries of a layer stay alike (cosine of the
concatenated heads at least ``reuse``), the last choice is read again instead of being made anew.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import QueryView, Selection, SingleQueryMethod, group_queries, logits, top_slots


def soft_vote(logits_HN: Tensor) -> Tensor:
    """Votes ``[N]``: each head spreads one vote over the candidates by a softmax of its logits."""
    return logits_HN.softmax(-1).sum(0)


@method(
    id="token_select",
    kind="pruning",
    title="TokenSelect: dynamic token-level selection by soft votes",
    paper="arXiv:2411.02886",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    claims=[
        {
            "metric": "attention speed-up",
            "value": 23.84,
            "against": "full attention",
            "on": "long contexts, one GPU (abstract: 'up to 23.84x')",
        },
        {
            "metric": "end-to-end speed-up",
            "value": 2.28,
            "against": "other long-context methods",
            "on": "long contexts, one GPU (abstract: 'up to 2.28x')",
        },
    ],
    details={
        "num_sinks, window": "reference code has 128 and 512, and a k of 2048; smaller here, for prompts of 1K",
        "keys": "ours: scored at their positions; the release scores them without rotation, to go past trained lengths",
        "positions": "as in the text; the release renumbers the selected slots, which is not offered",
        "scale": "reference code: none",
        "prompt": "ours: read densely; the release selects for each chunk of 512",
        "budget": "counts sinks and window, which the paper's k does not",
        "query head to key/value head": "by division; the released kernel takes the remainder, which is wrong",
    },
)
class TokenSelect(SingleQueryMethod):
    """One set a layer, by votes."""

    num_sinks: int = Field(4, ge=0, description="first tokens that are always read")
    window: int = Field(32, ge=1, description="last tokens that are always read, the query's own among them")
    scale: Literal["none", "sqrt"] = Field("none", description="of the logits before the vote: none, or 1/sqrt(d)")
    reuse: float = Field(
        1.1, ge=-1.1, description="cosine of queries from which a choice is read again; above 1: never"
    )

    def choose_one(self, view: QueryView, keep: int, artifact: object) -> Selection:
        """The choice for a single query: sinks and window, and the best of the middle for the rest of the budget."""
        if keep <= self.num_sinks + self.window:
            return self.with_ends(view, view.keys_BGND.new_zeros(0, dtype=torch.long), keep, 0.0)
        query, old = view.queries_BHTD.float().flatten(), view.scratch.get("query")
        if old is not None and self.reuse <= 1 and F.cosine_similarity(query, old, dim=0) >= self.reuse:
            return self.with_ends(view, view.scratch["middle"], keep, 0.0)
        start, stop = self.num_sinks, view.num_slots - self.window
        scores = logits(group_queries(view), view.keys_BGND[:, :, start:stop]).flatten(0, 3)
        votes_N = soft_vote(scores * view.scaling if self.scale == "sqrt" else scores)
        middle = top_slots(votes_N[None], keep - self.num_sinks - self.window)[0] + start
        view.scratch.update(query=query, middle=middle)
        return self.with_ends(view, middle, keep, self.scored(view))

    def with_ends(self, view: QueryView, middle: Tensor, keep: int, scored: float) -> Selection:
        """A middle with the sinks and the window of this query; a small budget goes to the sinks first."""
        place = torch.arange(view.num_slots, device=view.keys_BGND.device)
        sinks = min(self.num_sinks, keep - 1)
        window = min(self.window, keep - sinks)
        return Selection(torch.cat([place[:sinks], middle, place[-window:]])[None, None, None], None, scored)
