"""Token Recycling: what the target ranked highest after a token last time is drafted after it next time.

A matrix M[V, K] keeps, for each token, the K best successors the target named when it last forwarded that token. A
fixed tree of rank paths is unrolled from the last token through M, verified in one forward, and the rows of every
forwarded token are overwritten, accepted or not.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.speculative import DraftTree, SpeculativeMethod, Step

PUBLISHED_LEVELS = (
    [(r,) for r in range(8)],
    [(0, r) for r in range(8)] + [(1, r) for r in range(4)] + [(2, r) for r in range(3)] + [(3, 0), (3, 1)]
    + [(r, 0) for r in (4, 5, 6, 7)],
    [(0, 0, r) for r in range(8)] + [(0, 1, r) for r in range(3)] + [(0, 2, 0), (0, 2, 1)]
    + [(0, r, 0) for r in (3, 4, 5, 6, 7)]
    + [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0), (5, 0, 0)],
    [(0, 0, 0, r) for r in range(5)]
    + [(0, 0, 1, 0), (0, 0, 1, 1), (0, 0, 2, 0), (0, 0, 3, 0), (0, 0, 4, 0), (0, 1, 0, 0), (0, 2, 0, 0)]
    + [(1, 0, 0, 0), (2, 0, 0, 0), (3, 0, 0, 0)],
    [(0, 0, 0, 0, r) for r in range(3)]
    + [(0, 0, 0, 1, 0), (0, 0, 0, 2, 0), (0, 0, 1, 0, 0), (0, 1, 0, 0, 0), (1, 0, 0, 0, 0)],
    [(0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 1), (0, 0, 0, 1, 0, 0)],
)  # fmt: skip


def rank_paths(num_nodes: int, k: int = 8) -> list[tuple[int, ...]]:
    """The ``num_nodes`` best of the 80 published paths with ranks below ``k``, by the sum of (rank + 1) on the way."""
    paths = [path for level in PUBLISHED_LEVELS for path in level if max(path) < k]
    best = sorted(paths, key=lambda p: (sum(r + 1 for r in p), len(p), p))[:num_nodes]
    return sorted(best, key=lambda p: (len(p), p))


class SuccessorMatrix:
    """The matrix and the tree it is unrolled through."""

    def __init__(self, k: int, paths: Sequence[tuple[int, ...]], per_request: bool) -> None:
        place = {(): 0} | {path: i + 1 for i, path in enumerate(paths)}
        self.parents = (-1, *(place[path[:-1]] for path in paths))
        self.ranks = [path[-1] for path in paths]
        self.per_request = per_request
        self.k = k
        self.rows: dict[int, list[int]] = {}

    def start(self, prompt: Sequence[int]) -> None:
        """The matrix outlives requests unless told otherwise."""
        if self.per_request:
            self.rows = {}

    def propose(self, history: Sequence[int], room: int) -> DraftTree:
        """Unroll the template from the last token; nodes under an unwritten row are left out."""
        tokens, parents, placed = [history[-1]], [-1], {0: 0}
        depth = [0]
        for node, (parent, rank) in enumerate(zip(self.parents[1:], self.ranks, strict=True), 1):
            if parent not in placed or depth[placed[parent]] >= max(room, 0):
                continue
            row = self.rows.get(tokens[placed[parent]])
            if row is not None:
                placed[node] = len(tokens)
                depth.append(depth[placed[parent]] + 1)
                parents.append(placed[parent])
                tokens.append(row[rank])
        return DraftTree(tuple(tokens), tuple(parents))

    def observe(self, step: Step) -> None:
        """Overwrite the rows of all forwarded tokens; those of the accepted path last, as they are the surest."""
        best = step.logits_NV.topk(self.k, dim=-1).indices.tolist()
        for node in [*range(len(best)), *step.path]:
            self.rows[step.tree.tokens[node]] = best[node]

    def snapshot(self) -> dict[int, list[int]]:
        """The rows written so far; rows are replaced, never changed, so a shallow copy is enough."""
        return dict(self.rows)

    def restore(self, state: dict[int, list[int]]) -> None:
        """Go back to earlier rows."""
        self.rows = dict(state)


@method(
    id="token_recycling",
    kind="speculative",
    title="Turning Trash into Treasure: Token Recycling",
    paper="arXiv:2408.08696",
    guarantee="exact",
    baseline="ar",
    claims=[
        {
            "metric": "speedup_total",
            "value": 2.09,
            "against": "autoregressive decoding",
            "on": "Spec-Bench, Vicuna-7B, A100 (repository)",
        },
        {
            "metric": "mean_accepted_tokens",
            "value": 2.73,
            "against": "1.00 for plain decoding",
            "on": "Spec-Bench, Vicuna-7B (its leaderboard)",
        },
    ],
    details={
        "k": "reference code",
        "template": "reference code: 80 nodes; fewer are the best by rank sum (reconstruction)",
        "num_nodes": "reconstruction: 8 here, as a forward of 80 tokens costs a CPU nearly seven single ones; paper 80",
        "update order": "reconstruction: accepted path last; the release leaves equal tokens to the scatter",
        "unwritten rows": "reconstruction: their children are not drafted; the release drafts token 0 (cost only)",
        "verification": "token matching, exact under sampling too",
    },
)
class TokenRecycling(SpeculativeMethod):
    """``k`` successors a token, a tree of ``num_nodes`` drafted tokens."""

    k: int = Field(8, ge=1, le=8, description="successors kept for each token")
    num_nodes: int = Field(8, ge=1, le=80, description="drafted tokens a step")
    reset: Literal["never", "request"] = Field("never", description="when the matrix is emptied")

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """An empty matrix."""
        return SuccessorMatrix(self.k, rank_paths(self.num_nodes, self.k), self.reset == "request")
