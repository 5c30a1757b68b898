"""Token Recycling: what the target ranked highest after a token last time is drafted after it next time.

A matrix M[V, K] keeps, for each token, the K best successors the target named when it last forwarded that token. A
fixed tree of rank paths is unrolled from the last token through M, verified in one forward, and the rows of every
forwarded token are overwritten, accepted or not.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.speculative import Drafter, DraftTree, SpeculativeMethod, Step
from harness.kinds.speculative.pace import DecayedRates
from harness.kinds.speculative.widths import best_width

Path = tuple[int, ...]
"""A node by the ranks on the way to it: (0, 2) is the third successor of the root's first."""

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
    """The ``num_nodes`` best of the 80 published paths with ranks below ``k``, by the sum of (rank + 1) on the way.

    Every prefix of a path comes before it.
    """
    paths = [path for level in PUBLISHED_LEVELS for path in level if max(path) < k]
    return sorted(paths, key=lambda p: (sum(r + 1 for r in p), len(p), p))[:num_nodes]


class SuccessorMatrix(Drafter):
    """The matrix and the tree it is unrolled through: all ``paths``, or of an ``adaptive`` one as many as pay."""

    free = True

    def __init__(self, k: int, paths: Sequence[Path], per_request: bool, adaptive: bool = False) -> None:
        self.k, self.paths, self.per_request, self.adaptive = k, paths, per_request, adaptive
        self.places = {path: place for place, path in enumerate(paths)}
        self.rows: dict[int, list[int]] = {}
        # Of a path whose parent was right; before anything is seen, halving at every rank.
        self.rates = DecayedRates([0.5 ** (path[-1] + 1) for path in paths])

    def start(self, prompt: Sequence[int], sampler: Any = None, row: int = 0) -> None:
        """The matrix outlives requests unless told otherwise."""
        if self.per_request:
            self.rows = {}

    def propose(self, history: Sequence[int], room: int) -> DraftTree:
        """Unroll the template from the last token; nodes under an unwritten row are left out."""
        chances, count = self.chances(), len(self.paths)
        if self.adaptive:
            count = best_width([chances[path] for path in self.paths], self.costs)
        tokens, parents, placed = [history[-1]], [-1], {(): 0}
        for path in self.paths[:count]:
            parent = placed.get(path[:-1])
            row = None if parent is None or len(path) > room else self.rows.get(tokens[parent])
            if row is not None:
                placed[path] = len(tokens)
                parents.append(parent)
                tokens.append(row[path[-1]])
        promise = sum(chances[path] for path in placed)
        return DraftTree(tuple(tokens), tuple(parents), notes=tuple(placed), promise=promise)

    def chances(self) -> dict[Path, float]:
        """How likely each path is right as a whole; the root is."""
        chances: dict[Path, float] = {(): 1.0}
        for path, share in zip(self.paths, self.rates.shares(), strict=True):
            chances[path] = chances[path[:-1]] * share
        return chances

    def judge(self, tree: DraftTree, node: int, right: int | None) -> None:
        """Count the paths that go on from this node."""
        for child in tree.children[node]:
            self.rates.count(self.places[tree.notes[child]], child == right)

    def observe(self, step: Step) -> None:
        """Overwrite the rows of all forwarded tokens; those of the accepted path last, as they are the surest."""
        best = step.logits_NV.topk(self.k, dim=-1).indices.tolist()
        for node in [*range(len(best)), *step.path]:
            self.rows[step.tree.tokens[node]] = best[node]

    def snapshot(self) -> tuple[dict[int, list[int]], Any]:
        """The rows written so far and what was accepted of late; rows are replaced, never changed."""
        return dict(self.rows), self.rates.snapshot()

    def restore(self, state: tuple[dict[int, list[int]], Any]) -> None:
        """Go back to a snapshot."""
        rows, rates = state
        self.rows = dict(rows)
        self.rates.restore(rates)


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
        "num_nodes": "paper 80; 0, the default: as many as pay by the measured cost of a width and recent acceptance",
        "update order": "reconstruction: accepted path last; the release leaves equal tokens to the scatter",
        "unwritten rows": "reconstruction: their children are not drafted; the release drafts token 0 (cost only)",
        "verification": "token matching, exact under sampling too",
    },
)
class TokenRecycling(SpeculativeMethod):
    """``k`` successors a token, a tree of ``num_nodes`` drafted tokens."""

    k: int = Field(8, ge=1, le=8, description="successors kept for each token")
    num_nodes: int = Field(0, ge=0, le=80, description="drafted tokens a step; 0: as many as pay, none where none do")
    reset: Literal["never", "request"] = Field("never", description="when the matrix is emptied")

    width_field = "num_nodes"

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """An empty matrix."""
        paths = rank_paths(self.num_nodes or 80, self.k)
        return SuccessorMatrix(self.k, paths, self.reset == "request", self.adaptive)
