"""Merged draft tree: the text so far and recycled candidates draft together, and the tree grows where it pays.

Candidates after a node come from two sources that need no training: what followed the longest n-gram ending there
where it occurred before in the text (prompt lookup), and the k tokens the target ranked highest when it last saw the
node's last two tokens, else its last one (Token Recycling). How often a candidate is right is learnt from what was
accepted, for each n-gram length and each level of the target's own probability; the tree takes the likeliest slots
first, as many as expected tokens for the measured cost of a width say.
"""

import heapq
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from harness.catalog import method
from harness.kinds.speculative import Drafter, DraftTree, SpeculativeMethod, Step
from harness.kinds.speculative.candidates import Candidates, Key, ranked_rows
from harness.kinds.speculative.widths import best_width

LEAST_VALUE = 0.01
"""Slots that are less likely to be reached and right are not looked at."""


class MergedTree(Drafter):
    """Grows the tree best first. ``num_nodes`` 0: as many nodes as pay, up to ``most``."""

    free = True

    def __init__(self, source: Candidates, num_nodes: int, most: int) -> None:
        self.source, self.num_nodes, self.most = source, num_nodes, most
        self.before = -1

    def start(self, prompt: Sequence[int], sampler: Any = None, row: int = 0) -> None:
        """Forget the last text."""
        self.source.begin()
        self.before = prompt[-1]

    def propose(self, history: Sequence[int], room: int) -> DraftTree:
        """Take the likeliest slot, then put its successors beside the others."""
        self.source.ngrams.index(history)
        reach = max(self.source.max_ngram, 2)
        tokens, parents, contexts, depths = [history[-1]], [-1], [tuple(history[-reach:])], [0]
        keys: list[Key] = [(0, 0, 0)]
        values, heap = [], []
        most, node = self.num_nodes or self.most, 0
        value = 1.0
        while True:
            if depths[node] < room:
                for token, (chance, key) in self.source.after(contexts[node], history).items():
                    if value * chance > LEAST_VALUE:
                        heapq.heappush(heap, (-value * chance, node, token, key))
            if not heap or len(values) == most:
                break
            negative, parent, token, key = heapq.heappop(heap)
            node, value = len(tokens), -negative
            tokens.append(token)
            parents.append(parent)
            keys.append(key)
            values.append(value)
            depths.append(depths[parent] + 1)
            contexts.append((*contexts[parent][1 - reach :], token))
        count = len(values) if self.num_nodes else best_width(values, self.costs)
        end = count + 1
        promise = 1 + sum(values[:count])
        return DraftTree(tuple(tokens[:end]), tuple(parents[:end]), notes=tuple(keys[:end]), promise=promise)

    def judge(self, tree: DraftTree, node: int, right: int | None) -> None:
        """Count what was right below this node."""
        for child in tree.children[node]:
            self.source.learn(tree.notes[child], child == right)

    def observe(self, step: Step) -> None:
        """Overwrite the rows of all forwarded tokens."""
        tree = step.tree
        rows = ranked_rows(step.logits_NV, self.source.k)
        # The accepted path is written last: its rows come after the true text.
        for node in [*range(len(rows)), *step.path]:
            before = tree.tokens[tree.parents[node]] if node else self.before
            self.source.write(before, tree.tokens[node], rows[node])
        self.before = tree.tokens[step.path[-1]]

    def snapshot(self) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """Rows and outcomes; both are replaced, never changed, so shallow copies are enough."""
        return dict(self.source.rows), dict(self.source.outcomes)

    def restore(self, state: tuple[dict[Any, Any], dict[Any, Any]]) -> None:
        """Go back to a snapshot."""
        self.source.rows, self.source.outcomes = map(dict, state)


@method(
    id="merged_tree",
    kind="speculative",
    title="Merged draft tree: prompt lookup and Token Recycling in one tree of the width that pays",
    guarantee="exact",
    baseline="ar",
    details={
        "sources": "prompt lookup (arXiv:2304.04487 and others) and Token Recycling (arXiv:2408.08696), merged here",
        "rows": "own: keyed by the last two tokens too, which is surer than by one",
        "chances": "own: learnt by class: length of the match, level of the target's probability",
        "num_nodes": "0: the number with most expected tokens for its measured cost, up to `most`",
        "verification": "token matching, exact under sampling too",
    },
)
class MergedTreeDecoding(SpeculativeMethod):
    """``k`` recycled successors, n-grams up to ``max_ngram`` tokens, ``num_nodes`` drafted tokens."""

    k: int = Field(6, ge=1, le=16, description="recycled successors kept for each context")
    max_ngram: int = Field(5, ge=1, description="longest n-gram that is looked up")
    num_nodes: int = Field(0, ge=0, description="drafted tokens a step; 0: as many as pay, none where none do")
    most: int = Field(32, ge=1, description="largest tree where the number is chosen")

    width_field = "num_nodes"

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """Empty sources."""
        return MergedTree(Candidates(self.k, self.max_ngram), self.num_nodes, self.most)
