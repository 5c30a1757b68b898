"""TokenSelect: the heads vote softly for single tokens, and a layer reads one set.

s_hj = q_h k_j over the tokens between the first ``num_sinks`` and the last ``window``; c_j = sum_h softmax_j(s_h);
the highest c_j are read, with sinks and window, by all heads. While the queries of a layer stay alike (cosine of the
concatenated heads at least ``reuse``), the last choice is read again instead of being made anew.
"""

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import QueryView, Selection, SelectionMethod, best_slots, group_queries, logits

ALWAYS = 1e6
"""The score of sinks and window, above any sum of votes."""


def soft_vote(logits_BHTN: Tensor, candidate_TN: Tensor) -> Tensor:
    """Votes ``[B, T, N]``: each head spreads one vote over the candidates by a softmax of its logits."""
    return logits_BHTN.masked_fill(~candidate_TN, -1e30).softmax(-1).masked_fill(~candidate_TN, 0.0).sum(1)


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
class TokenSelect(SelectionMethod):
    """One set a layer, by votes."""

    by_row = True
    num_sinks: int = Field(4, ge=0, description="first tokens that are always read")
    window: int = Field(32, ge=1, description="last tokens that are always read, the query's own among them")
    scale: Literal["none", "sqrt"] = Field("none", description="of the logits before the vote: none, or 1/sqrt(d)")
    reuse: float = Field(
        1.1, ge=-1.1, description="cosine of queries from which a choice is read again; above 1: never"
    )

    def relevance(self, view: QueryView, artifact: object) -> Tensor:
        """Votes ``[B, 1, T, N]``; sinks and window above all, the latest first."""
        place = torch.arange(view.num_slots, device=view.keys_BGND.device)
        new = view.queries_BHTD.shape[2]
        own_T = view.num_slots - new + torch.arange(new, device=place.device)
        always_TN = (place < self.num_sinks) | (place > own_T[:, None] - self.window)
        scores = logits(group_queries(view), view.keys_BGND).flatten(1, 2)
        votes_BTN = soft_vote(scores * (view.scaling if self.scale == "sqrt" else 1.0), ~always_TN)
        return torch.where(always_TN, ALWAYS + place, votes_BTN)[:, None]

    def choose(self, view: QueryView, keep_BT: Tensor, artifact: object) -> Selection:
        """A new choice for each query, or the last one with the window as it is now."""
        if self.reuse > 1:
            return super().choose(view, keep_BT, artifact)
        new, slots = view.queries_BHTD.shape[2], view.num_slots
        steps = []
        for query in range(new):
            # As if decoded one by one, so that scores of a text are those of decoding it.
            seen = slots - new + query + 1
            alone = replace(
                view,
                queries_BHTD=view.queries_BHTD[:, :, query : query + 1],
                keys_BGND=view.keys_BGND[:, :, :seen],
                allowed=None,
            )
            steps.append(self.choose_one(alone, keep_BT[:, query : query + 1]))
        return in_steps(steps)

    def choose_one(self, view: QueryView, keep_BT: Tensor) -> Selection:
        """The choice for a single query."""
        query, old = view.queries_BHTD.float().flatten(), view.scratch.get("query")
        fits = int(keep_BT) >= self.num_sinks + self.window
        if old is not None and fits and F.cosine_similarity(query, old, dim=0) >= self.reuse:
            return self.again(view, view.scratch["middle"])
        index, _ = best_slots(self.relevance(view, None), None, keep_BT)
        slots = index[0, 0, 0]
        middle = slots[(slots >= self.num_sinks) & (slots < view.num_slots - self.window)]
        view.scratch.update(query=query, middle=middle)
        return Selection(index, None, self.scored(view))

    def again(self, view: QueryView, middle: Tensor) -> Selection:
        """An earlier middle with the sinks and the window of this query; nothing is scored."""
        place = torch.arange(view.num_slots, device=middle.device)
        recent = place[max(self.num_sinks, view.num_slots - self.window) :]
        return Selection(torch.cat([place[: self.num_sinks], middle, recent])[None, None, None], None, 0.0)


def in_steps(steps: list[Selection]) -> Selection:
    """Selections of single queries of one row as that of all, padded to the widest."""
    width = max(one.index_BSTK.shape[-1] for one in steps)
    room = [width - one.index_BSTK.shape[-1] for one in steps]
    index = torch.cat([F.pad(one.index_BSTK, (0, r)) for one, r in zip(steps, room, strict=True)], 2)
    valid = torch.arange(width, device=index.device) < width - index.new_tensor(room)[:, None]
    return Selection(index, None if not any(room) else valid[None, None], sum(s.scored for s in steps) / len(steps))
