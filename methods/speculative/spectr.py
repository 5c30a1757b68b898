"""SpecTr: k draft sequences at once, and k-SEQ, a rule that accepts one of k equally distributed drafts.

The k tokens after a position are independent draws from the draft's law p; the target's law there is q. A draw x is
accepted with min(1, q(x) / (rho p(x))). With beta(rho) = sum_x min(p(x), q(x) / rho) some draw is accepted with chance
p_acc = 1 - (1 - beta)^k, and rho is the least number with p_acc <= rho beta, for then the rest of the target's law,
q - min(p, q / rho) p_acc / beta, is nowhere negative; a token is drawn from it where all are refused. What is emitted
follows q exactly, and a draft is accepted at least (1 - 1/e) times as often as by the best rule there is. The sequences
that carry the accepted token go on to the next position, where their number plays k.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.speculative.drafts import DraftedMethod
from harness.kinds.speculative.iid_trees import IidDrafter
from harness.kinds.speculative.widths import width_costs

HALVINGS = 30


def deflation(target_V: Tensor, draft_V: Tensor, k: int) -> tuple[float, float]:
    """The factor rho in [1, k] for ``k`` draws from ``draft_V``, and beta(rho). Laws in float64 that sum to 1.

    p_acc falls and rho beta rises with rho, so halving finds where they meet. The upper end is returned: with any
    larger rho the law stays exact, with a smaller one it does not.
    """
    # Whatever rho is, tokens with q <= p count with q / rho and tokens with q >= k p with p: only the rest is summed.
    under, over = target_V <= draft_V, target_V >= k * draft_V
    low, high = float(target_V[under].sum()), float(draft_V[over & ~under].sum())
    between = ~(under | over)
    p, q = draft_V[between], target_V[between]

    def beta(rho: float) -> float:
        return low / rho + high + float(torch.minimum(p, q / rho).sum())

    lower, upper = 1.0, float(k)
    if any_of(beta(lower), k) <= beta(lower):
        return lower, beta(lower)
    for _ in range(HALVINGS):
        rho = (lower + upper) / 2
        if any_of(beta(rho), k) > rho * beta(rho):
            lower = rho
        else:
            upper = rho
    return upper, beta(upper)


def any_of(chance: float, k: int) -> float:
    """Chance that one of ``k`` independent events happens."""
    return 1 - (1 - min(chance, 1.0)) ** k


def k_seq(law_V: Tensor, tokens: Sequence[int], laws_KV: Tensor) -> tuple[list[float], Tensor]:
    """The rule at one node for draws with repeats from one law, that of any row of ``laws_KV``."""
    target_V, draft_V = (law / law.sum() for law in (law_V.double(), laws_KV[0].double()))
    rho, beta = deflation(target_V, draft_V, len(tokens))
    drawn = torch.tensor(tokens, device=law_V.device)
    chances = (target_V[drawn] / (rho * draft_V[drawn])).clamp(max=1).tolist()
    if beta <= 0:
        return chances, law_V
    per_draw = any_of(beta, len(tokens)) / beta
    rest_V = (target_V - torch.minimum(draft_V, target_V / rho) * per_draw).clamp(min=0)
    total = rest_V.sum()
    return chances, (rest_V / total).to(law_V.dtype) if total > 0 else law_V


@method(
    id="spectr",
    kind="speculative",
    title="SpecTr: k draft sequences verified by k-SEQ",
    paper="arXiv:2310.15141",
    guarantee="distribution",
    baseline="ar",
    claims=[
        {
            "metric": "speedup_total",
            "value": 2.13,
            "against": "autoregressive decoding",
            "on": "the abstract, state-of-the-art large language models",
        },
        {
            "metric": "speedup_total",
            "value": 1.37,
            "against": "speculative decoding with one sequence",
            "on": "the abstract, state-of-the-art large language models",
        },
    ],
    details={
        "rule": "k-SEQ as in the paper; rho is the upper end of the bisection, from which on the law is exact",
        "k": "reconstruction: 4; the abstract gives none",
        "length": "0: the length with most expected tokens for its cost on this machine; the abstract gives none",
        "shared prefixes": "equal tokens are forwarded once and count in verification as often as they were drawn",
        "greedy": "all k sequences are the same one: a chain, verified by matching",
        "draft law": "the target's own processors, temperature, top-k and top-p act on the draft too",
        "draft": "a student distilled from the target by adaspec, as no small model shares the default's vocabulary",
    },
)
class SpecTr(DraftedMethod):
    """``k`` sequences of ``length`` tokens of the model ``draft``."""

    draft: str = Field("adaspec", description="layers:N, noised:SHARE, a method that makes drafts, or a model's name")
    k: int = Field(4, ge=1, description="sequences drawn a step")
    length: int = Field(0, ge=0, description="tokens of each sequence; 0: as many as pay, none where none do")
    longest: int = Field(8, ge=1, description="longest sequence where the length is chosen")

    rule = staticmethod(k_seq)

    @property
    def adaptive(self):  # type: ignore[no-untyped-def]
        """Only a length that was asked for is held to."""
        return self.length == 0

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """The draft model, k sequences ahead: the root draws k tokens, a node as many as sequences pass it."""
        model, costs = self.draft_model(subject, artifact), width_costs(subject)
        levels = self.length or self.longest
        return IidDrafter(model, costs, lambda depth, passing: passing if depth else self.k, levels, self.adaptive)
