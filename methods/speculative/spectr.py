"""SpecTr: k draft sequences at once, verified token by token by the rule k-SEQ, which keeps the target's law.

With drafts X_1 .. X_k from p and target q: beta(rho) = sum_x min(p(x), q(x) / rho), p_acc = 1 - (1 - beta)^k, and rho*
in [1, k] solves p_acc(rho) = rho beta(rho). X_i is accepted with min(1, q(X_i) / (rho* p(X_i))), one after the other;
where all are refused a token of (q - min(p, q / rho*) p_acc / beta) / (1 - p_acc) is emitted.
"""

from collections.abc import Sequence

import torch
from pydantic import Field

from harness.catalog import method
from harness.kinds.speculative import DraftTree
from harness.kinds.speculative.drafts import DepthDrafter, DraftedMethod, DraftModel
from harness.kinds.speculative.growing import GrowingTree

HALVINGS = 40


def deflation(draft_V: torch.Tensor, law_V: torch.Tensor, k: int) -> tuple[float, float, float]:
    """rho*, beta(rho*) and p_acc(rho*), by halving; the upper end is taken, so that no residual is negative."""

    def at(rho: float) -> tuple[float, float]:
        beta = min(1.0, float(torch.minimum(draft_V, law_V / rho).sum()))
        return beta, 1 - (1 - beta) ** k

    low, high = 1.0, float(k)
    beta, accepted = at(low)
    if accepted <= beta:
        return low, beta, accepted
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        beta, accepted = at(middle)
        low, high = (middle, high) if accepted > middle * beta else (low, middle)
    return high, *at(high)


def k_seq(law_V: torch.Tensor, tokens: Sequence[int], laws_KV: torch.Tensor) -> tuple[list[float], torch.Tensor]:
    """The rule at one node: chances of the draws in their order, and the law where all are refused."""
    draft_V = laws_KV[0].double()
    target_V = law_V.double()
    rho, beta, accepted = deflation(draft_V, target_V, len(tokens))
    chances = [min(1.0, float(target_V[x] / (rho * draft_V[x]))) for x in tokens]
    if accepted >= 1 or beta == 0:
        return chances, law_V
    residual_V = (target_V - torch.minimum(draft_V, target_V / rho) * accepted / beta).clamp(min=0)
    total = residual_V.sum()
    return chances, (residual_V / total).to(law_V.dtype) if total > 0 else law_V


class ParallelDrafter(DepthDrafter):
    """``k`` sequences of ``length`` tokens; where they agree they share their nodes."""

    def __init__(self, model: DraftModel, k: int, length: int, longest: int) -> None:
        super().__init__(model)
        self.k, self.length, self.longest = k, length, longest

    def propose(self, history: Sequence[int], room: int) -> DraftTree:
        """All sequences a token further at once. Greedy drafts are all alike: one chain."""
        k = 1 if self.sampler.greedy else self.k
        length = self.length or self.acceptance.levels([k] * self.longest, self.costs, self.model.token_price)
        length = min(length, self.model.reach(history, room))
        tree = GrowingTree(self.model, history, self.sampler, self.row)
        ends = [0] * k
        for level in range(length):
            if level:
                tree.grow(list(dict.fromkeys(ends)))
            ends = [child for end in ends for child in self._next(tree, end)]
        return tree.finished()

    @staticmethod
    def _next(tree: GrowingTree, end: int) -> list[int]:
        return tree.best(end, 1) if tree.sampler.greedy else [tree.draw(end, tree.law(end))]


@method(
    id="spectr",
    kind="speculative",
    title="SpecTr: Fast Speculative Decoding via Optimal Transport",
    paper="arXiv:2310.15141",
    guarantee="distribution",
    baseline="ar",
    claims=[
        {
            "metric": "speedup_total",
            "value": 2.13,
            "against": "autoregressive decoding; 1.37 over speculative decoding",
            "on": "the paper's abstract",
        }
    ],
    details={
        "k-SEQ": "paper; its validity was derived again and is enumerated in the tests",
        "k, length": "reconstruction: 4 sequences; 0, the default length: as many tokens as pay on this machine",
        "greedy": "the k drafts of a greedy request are equal, so one chain is drafted and matched",
        "draft": "a student distilled from the target by adaspec",
    },
)
class SpecTr(DraftedMethod):
    """``k`` sequences of ``length`` tokens of the model ``draft``."""

    draft: str = Field("adaspec", description="layers:N, noised:SHARE, a method that makes drafts, or a model's name")
    k: int = Field(4, ge=1, description="draft sequences")
    length: int = Field(0, ge=0, description="tokens of each; 0: as many as pay, none where none do")
    longest: int = Field(6, ge=1, description="longest sequences where the length is chosen")

    rule = staticmethod(k_seq)
    width_field = "length"

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """The draft model, ``k`` sequences ahead."""
        model = self.draft_model(subject, artifact)
        return ParallelDrafter(model, self.k, self.length, self.longest)
