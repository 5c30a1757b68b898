"""Interface of architectures that recommend items: no language models, so they have probes and answer no text.

All are trained on the same synthetic interactions for the same number of rows, and rank all items, cold ones included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from harness.kinds.architecture.base import seeded
from harness.kinds.architecture.interactions import USERS, Interactions, ndcg, ranks, recall, synthetic
from harness.kinds.architecture.stepwise import no_cache
from harness.kinds.architecture.training import descend, stage_measurements
from harness.kinds.method import Artifact, Check, Measurement, Method, PrepareContext, Probe
from harness.subjects.subject import Subject
from harness.toolkit.rows import Batch

USERS_AT_ONCE = 250


def last_of(ids_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Rows without their last real item (0 in its place), and that item."""
    place_B1 = mask_BL.sum(1, keepdim=True) - 1
    return ids_BL.scatter(1, place_B1, 0), ids_BL.gather(1, place_B1)[:, 0]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RecommenderMethod(Method):
    """A subclass overrides ``build``, ``loss`` and ``scores``, and ``fit`` where its training has several stages."""

    trains: ClassVar[bool] = True
    changes: ClassVar[frozenset[str]] = frozenset()
    replaces: ClassVar[frozenset[str]] = frozenset({"weights", "decoder", "tokenizer", "cache"})

    hidden: int = Field(64, ge=8, description="width of the model")
    layers: int = Field(2, ge=1, description="layers of the model")
    heads: int = Field(2, ge=1, description="attention heads; they divide the width into even parts")
    steps: int = Field(600, ge=1, description="optimizer steps, all stages together")
    batch: int = Field(128, ge=1, description="beginnings of users in one step")
    learning_rate: float = Field(2e-3, gt=0, description="of AdamW at its highest, then falling as a cosine")

    def build(self, data: Interactions) -> nn.Module:
        """An untrained model for these items."""
        raise NotImplementedError(f"{self.card.id} does not override build")

    def loss(self, model: Any, data: Interactions, history_BL: Tensor, target_B: Tensor) -> Tensor:
        """The scalar that training lowers; cold items may not be learnt from."""
        raise NotImplementedError(f"{self.card.id} does not override loss")

    def scores(self, model: Any, history_BL: Tensor) -> Tensor:
        """``[B, I]``: how much each item fits as the next; -inf for one that cannot be told."""
        raise NotImplementedError(f"{self.card.id} does not override scores")

    def check_twin(self) -> RecommenderMethod:
        """The method as it is checked, of a size that trains in milliseconds."""
        from dataclasses import replace

        return replace(self, hidden=16, layers=1, steps=4, batch=8)

    def stage(
        self, phase: str, model: nn.Module, data: Interactions, rows: Iterator[Batch], steps: int
    ) -> dict[str, Any]:
        """One stage of a training."""

        def loss(model: Any, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
            return self.loss(model, data, *last_of(ids_BL, mask_BL))

        return descend(phase, model, loss, rows, steps, [(self.learning_rate, model.parameters())])

    def fit(self, data: Interactions, rows: Iterator[Batch]) -> tuple[nn.Module, list[dict[str, Any]]]:
        """A trained model and one record a stage."""
        model = self.build(data)
        return model, [self.stage("train", model, data, rows, self.steps)]

    def prepare(self, subject: Subject, ctx: PrepareContext) -> Artifact:
        """Train on the synthetic interactions, in float32 on the subject's device; nothing else of it is used."""
        data = on_device(synthetic(), subject.device)
        rows = (
            (i.to(subject.device), m.to(subject.device))
            for i, m in data.training_rows(self.batch, self.steps, ctx.seed)
        )
        with torch.inference_mode(False), torch.enable_grad(), seeded(subject, ctx.seed):
            model, stages = self.fit(data, rows)
        return {"weights": {name: value.detach() for name, value in model.state_dict().items()}, "stages": stages}

    @contextmanager
    def apply(self, subject: Subject, artifact: Artifact = None) -> Iterator[Subject]:
        """A subject that can be probed; it neither scores text nor writes any."""
        self.require_weights(artifact)
        with torch.inference_mode(False), seeded(subject, 0):
            model = self.build(on_device(synthetic(), subject.device))
        model.load_state_dict(artifact["weights"])
        yield Subject(
            name=subject.name,
            model=model.eval(),
            tokenizer=None,
            new_cache=no_cache,
            scorer=subject.scorer,
            decoder=subject.decoder,
            capabilities=frozenset(),
        )

    def training_measurements(self, artifact: Artifact) -> Sequence[Measurement]:
        """Steps, the loss at the end, and each stage's seconds."""
        return stage_measurements(artifact["stages"])

    def probes(self) -> Iterable[Probe]:
        """``ranking``: where the items that the users really took stand."""
        return (Ranking(self),)

    def checks(self, subject: Subject) -> Iterable[Check]:
        """Invariants of every recommender."""
        from harness.kinds.architecture.recommend_checks import recommender_checks

        return recommender_checks(self.check_twin(), subject)


def on_device(data: Interactions, device: torch.device) -> Interactions:
    """The same data elsewhere; users stay where they are drawn from."""
    return Interactions(data.features_IF.to(device), data.warm_I.to(device), data.users_UL)


@plain_dataclass
class Ranking:
    """The first users' last items among all items; forwards of the layers for one list."""

    method: RecommenderMethod
    users: int = USERS
    name: str = "ranking"

    def measure(self, subject: Subject) -> list[Measurement]:
        """``recall_at_10`` and ``ndcg_at_10`` of all, of warm and of cold items, and ``forwards``."""
        data = synthetic()
        history_UL, target_U = (table[: self.users] for table in data.held_out(1))
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        hook = subject.model.blocks.register_forward_hook(count)
        found = []
        try:
            with torch.inference_mode():
                for rows in history_UL.to(subject.device).split(USERS_AT_ONCE):
                    found.append(self.method.scores(subject.model, rows).cpu())
        finally:
            hook.remove()
        rank_U = ranks(torch.cat(found), target_U)
        warm_U = data.warm_I[target_U]
        figures = [Measurement("forwards", calls / len(found), n=len(found))]
        for phase, chosen_U in (("", torch.ones_like(warm_U)), ("warm", warm_U), ("cold", ~warm_U)):
            own = rank_U[chosen_U]
            figures += [
                Measurement("recall_at_10", recall(own), n=len(own), phase=phase),
                Measurement("ndcg_at_10", ndcg(own), n=len(own), phase=phase),
            ]
        return figures
