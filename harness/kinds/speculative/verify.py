"""Lossless verification: which drafted tokens stay, and what is emitted after them.

The rules at one node are pure functions; exactness of each is a sum over all drafts, which the tests enumerate.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.kinds.speculative.base import DraftTree, Rule
from harness.subjects.sampling import Sampler


def verify(
    tree: DraftTree, logits_NV: Tensor, sampler: Sampler, history: Sequence[int], row: int = 0, rule: Rule | None = None
) -> tuple[list[int], int]:
    """Accepted nodes (root first) and the token that follows them; ``history`` ends with the root.

    Greedy decoding and trees without laws are verified by matching, all else by the rule.
    """
    if rule is None or sampler.greedy or tree.laws_NV is None:
        return match_tokens(tree, logits_NV, sampler, history, row)
    path, grown = [0], list(history)
    while True:
        law_V = sampler.probabilities(logits_NV[path[-1]], grown)
        child, token = _at_node(tree, path[-1], law_V, sampler, row, rule)
        if child is None:
            return path, token
        path.append(child)
        grown.append(token)


def match_tokens(
    tree: DraftTree, logits_NV: Tensor, sampler: Sampler, history: Sequence[int], row: int = 0
) -> tuple[list[int], int]:
    """At each node draw what the target would emit, and descend while a child carries it.

    Exact for any drafter, greedy and sampled, since every emitted token is drawn from the target's own law.
    """
    picks = sampler.greedy_picks(logits_NV)
    path, grown = [0], list(history)
    while True:
        node = path[-1]
        token = sampler.settle(picks[node], grown, row) if picks else sampler.pick(logits_NV[node], grown, row)
        matching = [child for child in tree.children[node] if tree.tokens[child] == token]
        if not matching:
            return path, token
        path.append(matching[0])
        grown.append(token)


def _at_node(
    tree: DraftTree, node: int, law_V: Tensor, sampler: Sampler, row: int, rule: Rule
) -> tuple[int | None, int]:
    """The accepted child and its token, or None and a token of the residual law."""
    assert tree.laws_NV is not None
    drawn = tree.children[node] if tree.draws is None else tree.draws[node]
    if not drawn:
        return None, sampler.draw(law_V, row)
    tokens = [tree.tokens[child] for child in drawn]
    chances, residual_V = rule(law_V, tokens, tree.laws_NV[list(drawn)])
    for child, token, chance in zip(drawn, tokens, chances, strict=True):
        if sampler.uniform(row) < chance:
            return child, token
    return None, sampler.draw(residual_V, row)


def recursive_rejection(law_V: Tensor, tokens: Sequence[int], laws_KV: Tensor) -> tuple[list[float], Tensor]:
    """Speculative sampling over one draw or several, one after the other.

    A draw ``x`` from ``p`` is accepted with ``min(1, q(x) / p(x))``; refused, ``q`` becomes ``max(q - p, 0)``
    normalised. With one draw this is the rule of Leviathan et al. (arXiv:2211.17192) and Chen et al.
    (arXiv:2302.01318); with equal laws that of SpecInfer; with laws without the refused tokens that of Sequoia.
    """
    chances = []
    for token, draft_V in zip(tokens, laws_KV, strict=True):
        chances.append(min(1.0, float(law_V[token]) / max(float(draft_V[token]), torch.finfo(draft_V.dtype).tiny)))
        law_V = _normalised(law_V - draft_V, law_V)
    return chances, law_V


def _normalised(difference_V: Tensor, otherwise_V: Tensor) -> Tensor:
    """The positive part as a law; where rounding left none, the law before."""
    positive_V = difference_V.clamp(min=0)
    total = positive_V.sum()
    return positive_V / total if total > 0 else otherwise_V
