"""A chain drafted by a model: as long as it pays, or as long as the draft is sure of itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.kinds.speculative.base import DraftTree
from harness.kinds.speculative.drafts import DepthDrafter, DraftModel


class ChainDrafter(DepthDrafter):
    """Draws a chain of ``num_draft`` tokens; 0: as many as pay by what was accepted of late, up to ``longest``.

    No token is drawn after one whose place gave the draft's likeliest token less than ``min_confidence``; this is
    settled before the draw, so the law of the output is kept.
    """

    def __init__(self, model: DraftModel, num_draft: int, longest: int, min_confidence: float = 0.0) -> None:
        super().__init__(model)
        self.num_draft, self.longest, self.min_confidence = num_draft, longest, min_confidence

    def propose(self, history: Sequence[int], room: int) -> DraftTree:
        """Tokens one after the other, each from the draft's law after those before it."""
        length = self.num_draft or self.acceptance.length(self.longest, self.costs, self.model.token_price)
        length = min(length, self.model.reach(history, room))
        tokens, laws, grown = [history[-1]], [], list(history)
        logits_V = self.model.root(history) if length > 0 else None
        for place in range(length):
            assert logits_V is not None
            if self.min_confidence and float(logits_V.float().softmax(-1).max()) < self.min_confidence:
                break
            law_V = self.sampler.probabilities(logits_V, grown)
            token = int(law_V.argmax()) if self.sampler.greedy else self.sampler.draw(law_V, self.row)
            tokens.append(token)
            grown.append(token)
            laws.append(law_V)
            if place + 1 < length:
                logits_V = self.model.grow([token], [place])[0]
        laws_NV = None if self.sampler.greedy or not laws else torch.stack([laws[0], *laws])
        return DraftTree(tuple(tokens), tuple(range(-1, len(tokens) - 1)), laws_NV)
