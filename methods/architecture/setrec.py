"""SETRec: an item is an unordered set of vectors, and a whole set is told in one forward.

Item i -> one collaborative vector (W times a frozen recommender's) and n semantic ones (an auto-encoder of its
feature). In the history a vector sees itself and all vectors of earlier items, and all vectors of an item share one
position. n + 1 learnt queries stand behind it: each sees the whole history and itself, not the others. Query q scores
s_q(i) = <o_q, e_{q,i}>. Loss = mean over q of the cross-entropy over items + ``alpha`` times the mean squared error of
the feature's reconstruction. A list is made of (1 - beta) s_0 + beta (s_1 + ... + s_n), beta chosen on validation.
"""

from itertools import islice

import torch
from pydantic import Field

from harness.catalog import method
from harness.kinds.architecture import RecommenderMethod
from harness.kinds.architecture.blocks import Blocks
from harness.kinds.architecture.item_sets import SetRecommender, best_beta

BETAS = tuple(k / 10 for k in range(1, 11))


@method(
    id="setrec",
    kind="architecture",
    title="Order-agnostic Identifier for Large Language Model-based Generative Recommendation (SETRec)",
    paper="arXiv:2502.10833",
    guarantee="approximate",
    baseline="single_id",
    needs="minutes of training",
    identity={"n": 0},
    details={
        "mask, positions, queries, loss, weights": "reference code, its decoder-only version",
        "model": "ours: two layers from random weights; the paper has T5-small and Qwen of 1.5B to 7B with LoRA",
        "prompts": "left out: no instruction before the history and no response prompt behind it",
        "collaborative vectors": "ours: a single_id model, trained with part of the steps; with n = 0 they are "
        "learnt in place, and the model is a single_id",
        "auto-encoder": "ours: one inner layer of four times the width; the reference code has 512, 256 and 128",
        "n, alpha": "reference code: 4, and 0.5 to 0.7",
        "beta": "reference code: 0.1 to 1.0 on validation; ours: by recall at 10, then NDCG at 10",
        "data": "as single_id",
    },
)
class SetRec(RecommenderMethod):
    """All vectors of the next item at once, in whatever order."""

    n: int = Field(4, ge=0, le=8, description="semantic vectors of an item; 0: one learnt vector alone")
    alpha: float = Field(0.6, ge=0, description="weight of the reconstruction")
    collaborative: float = Field(0.4, gt=0, lt=1, description="part of the steps that trains the frozen vectors")

    def _model(self, data, n, collaborative):  # type: ignore[no-untyped-def]
        blocks = Blocks(self.hidden, self.layers, self.heads)
        return SetRecommender(data.features_IF, n, blocks, collaborative).to(data.features_IF.device)

    def build(self, data):  # type: ignore[no-untyped-def]
        """The model over sets, its frozen vectors still 0."""
        frozen = torch.zeros(len(data.features_IF), self.hidden, device=data.features_IF.device)
        return self._model(data, self.n, frozen if self.n else None)

    def loss(self, model, data, history_BL, target_B):  # type: ignore[no-untyped-def]
        """Cross-entropy of every query, and the reconstruction."""
        return model.loss(history_BL, target_B, data.warm_I, self.alpha)

    def fit(self, data, rows):  # type: ignore[no-untyped-def]
        """A recommender with one vector an item, whose table is frozen, then sets; last the weight of the queries."""
        if not self.n:
            return super().fit(data, rows)
        before = min(self.steps - 1, max(1, round(self.steps * self.collaborative)))
        single = self._model(data, 0, None)
        stages = [self.stage("collaborative", single, data, islice(rows, before), before)]
        model = self._model(data, self.n, single.table.weight.detach().clone())
        stages.append(self.stage("sets", model, data, rows, self.steps - before))
        history_UL, target_U = (t.to(data.features_IF.device) for t in data.held_out(2))
        with torch.no_grad():
            model.beta.fill_(best_beta(model.query_scores(history_UL), target_U, BETAS))
        return model, stages

    def scores(self, model, history_BL):  # type: ignore[no-untyped-def]
        """One forward, whatever n is."""
        return model.scores(history_BL)
