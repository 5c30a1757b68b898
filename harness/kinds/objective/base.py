"""Interface of the kind ``objective``: a method changes how rewards become a gradient, the kind trains with it.

Reinforcement from verifiable rewards on a copy of the subject's model: sample groups of responses, grade them, take a
few optimizer steps on the frozen batch, repeat. The given subject is never touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from harness.errors import Refused
from harness.kinds.method import Artifact, Check, Measurement, Method, PrepareContext, Probe, Workload
from harness.kinds.objective.batch import RolloutBatch
from harness.kinds.objective.copies import private_copy, training_copy
from harness.kinds.objective.rollouts import Sampling
from harness.kinds.objective.samplers import GroupSampler, RolloutSampler
from harness.kinds.objective.stages import Bound, aggregate, clipped_surrogate, group_normalize, ratios
from harness.subjects.subject import GENERATE, TRAIN, Subject
from harness.toolkit.verifiable import Problems, VerifiableTask, verifiable_task


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ObjectiveMethod(Method):
    """Group-normalised advantages, the clipped surrogate and the mean of the responses' means, unless overridden.

    A subclass overrides the stages it changes. Stages are pure. Once for each frozen batch, in this order and without
    gradients: ``rewards``, ``advantage``, ``select``, ``token_mask``, ``token_weight``. For every minibatch, which
    holds whole groups: ``ratio`` and ``bounds`` in ``surrogate``, then ``aggregate``. Masked positions may hold
    anything and are read by no stage. ``progress`` is the part of the updates that is done, from 0 to below 1.

    ``requires`` names what the old policy must tell beside log-probabilities and entropy: ``hidden``, ``logps`` (of
    the whole vocabulary), ``attention``. ``centred``: equal rewards within a group teach nothing.
    """

    trains: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset()
    centred: ClassVar[bool] = True

    problems: Problems = Field("chain_sum", description="what is asked and graded; sums suit models that speak")
    updates: int = Field(40, ge=1, description="rollout batches that are sampled and trained on")
    prompts_per_update: int = Field(16, ge=1, description="prompts of one rollout batch")
    group_size: int = Field(8, ge=2, description="responses sampled to each prompt")
    max_new_tokens: int = Field(32, ge=1, description="longest response")
    lora_rank: int = Field(0, ge=0, description="rank of LoRA adapters on queries and values; 0: all weights learn")
    learning_rate: float = Field(3e-4, gt=0, description="of AdamW, constant")
    minibatches: int = Field(2, ge=1, description="optimizer steps on each rollout batch")
    clip_low: float = Field(0.2, gt=0, le=1, description="ratios below 1 minus this are clipped")
    clip_high: float = Field(0.2, gt=0, description="ratios above 1 plus this are clipped")
    temperature: float = Field(1.0, gt=0, description="of sampling and of all log-probabilities")

    def task(self, held_out: bool = False) -> VerifiableTask:
        """Where problems of one split and their rewards come from."""
        return verifiable_task(self.problems, held_out)

    def sampling(self, previous: RolloutBatch | None) -> Sampling:
        """How the next responses are drawn, given the batch before (None at first)."""
        return Sampling(group_size=self.group_size, max_new_tokens=self.max_new_tokens, temperature=self.temperature)

    def sampler(self, subject: Subject, seed: int) -> RolloutSampler:
        """What draws problems and responses: whole groups anew for every update."""
        return GroupSampler(self, subject, seed)

    def warm_up(self, subject: Subject, seed: int) -> None:
        """What trains the subject's own model before the first rollout; nothing for most."""

    def critic(self, subject: Subject) -> nn.Module | None:
        """A module that turns last states ``[B, T, D]`` into values ``[B, T]`` and is trained beside the policy."""
        return None

    def attention_layers(self, layers: int) -> Sequence[int]:
        """The layers whose attention is averaged, of a model with so many ``layers``."""
        return (layers // 2,)

    def rewards(self, batch: RolloutBatch) -> Tensor:
        """Shaped rewards ``[B]``; those of the batch are the task's."""
        return batch.rewards_B

    def advantage(self, batch: RolloutBatch) -> Tensor:
        """Advantages ``[B, T]``; those of a whole response stand in its whole row, padding included."""
        return group_normalize(batch.rewards_B, batch.group_ids_B)[:, None].expand(batch.response_mask_BT.shape)

    def select(self, batch: RolloutBatch, adv_BT: Tensor, progress: float) -> Tensor | None:
        """Rows ``[N]`` that are trained on, None for all; the others cost no forward pass."""
        return None

    def token_mask(self, batch: RolloutBatch, adv_BT: Tensor, progress: float) -> Tensor | None:
        """Tokens ``[B, T]`` that count, None for all: for the later stages the others are padding."""
        return None

    def token_weight(self, batch: RolloutBatch, adv_BT: Tensor, progress: float) -> Tensor | None:
        """Weights ``[B, T]`` of the per-token losses, None for 1."""
        return None

    def ratio(self, logp_BT: Tensor, batch: RolloutBatch) -> Tensor:
        """New probability over old, ``[B, T]``."""
        return ratios(logp_BT, batch.old_logps_BT)

    def bounds(self, batch: RolloutBatch) -> tuple[Bound, Bound]:
        """How far below and above 1 a ratio may lie before it is clipped, as numbers or ``[B, T]``."""
        return self.clip_low, self.clip_high

    def surrogate(self, logp_BT: Tensor, batch: RolloutBatch, adv_BT: Tensor) -> Tensor:
        """Per-token loss ``[B, T]``."""
        return clipped_surrogate(self.ratio(logp_BT, batch), adv_BT, *self.bounds(batch))

    def aggregate(self, loss_BT: Tensor, batch: RolloutBatch, adv_BT: Tensor) -> Tensor:
        """The scalar loss."""
        return aggregate(loss_BT, batch.response_mask_BT, "seq")

    def loss(self, logp_BT: Tensor, batch: RolloutBatch, adv_BT: Tensor, weight_BT: Tensor | None) -> Tensor:
        """Surrogate, weighted, then aggregated."""
        loss_BT = self.surrogate(logp_BT, batch, adv_BT)
        return self.aggregate(loss_BT if weight_BT is None else loss_BT * weight_BT, batch, adv_BT)

    def value_loss(self, values_BT: Tensor, batch: RolloutBatch) -> Tensor:
        """The scalar that trains the critic, whose values of now are ``values_BT``."""
        raise NotImplementedError(f"{self.card.id} has a critic but no value_loss")

    def prepare(self, subject: Subject, ctx: PrepareContext) -> Artifact:
        """Train a copy; the artifact holds its ``state`` and a ``record`` with one dict of figures an update."""
        from harness.kinds.objective.loop import train

        self._require(subject)
        copied = training_copy(subject)
        self.warm_up(copied, ctx.seed)
        state, record = train(self, copied, ctx.seed, ctx.folder)
        held = {name: value.to(subject.dtype) if value.is_floating_point() else value for name, value in state.items()}
        return {"state": held, "record": record}

    def _require(self, subject: Subject) -> None:
        subject.require(TRAIN, self.card.id)
        subject.require(GENERATE, self.card.id)
        if not subject.text_tokenizer().eos_ids:
            raise Refused(f"{self.card.id} needs a tokenizer with an end-of-text id; {subject.name} has none")
        if self.minibatches > self.prompts_per_update:
            raise Refused(
                f"{self.card.id}: {self.minibatches} minibatches of whole groups cannot be made of "
                f"{self.prompts_per_update} prompts; lower minibatches or raise prompts_per_update"
            )

    @contextmanager
    def apply(self, subject: Subject, artifact: Artifact = None) -> Iterator[Subject]:
        """The subject with a copy of its model that holds the trained weights."""
        self.require_weights(artifact)
        trained = private_copy(subject)
        trained.model.load_state_dict(artifact["state"])
        yield trained

    def training_measurements(self, artifact: Artifact) -> Sequence[Measurement]:
        """Figures of the whole training, made from its record."""
        from harness.kinds.objective.loop import summary

        return summary(artifact["record"])

    def training_samples(self, artifact: Artifact) -> Sequence[Mapping[str, Any]]:
        """The learning curves: all figures of every update."""
        return [
            {"side": "update", "unit": unit, "name": name, "value": value}
            for unit, row in enumerate(artifact["record"])
            for name, value in row.items()
        ]

    def workloads(self, subject: Subject) -> Iterable[Workload]:
        """``update``: one rollout batch's optimizer steps, put back after each call."""
        from harness.kinds.objective.update import update_workload

        self._require(subject)
        return (update_workload(self, subject),)

    def probes(self) -> Iterable[Probe]:
        """``held_out_rewards`` of the trained subject; ``gradient_audit``, on a batch that is the same for all."""
        from harness.kinds.objective.audit import GradientAudit
        from harness.kinds.objective.held_out import HeldOutRewards

        return (HeldOutRewards(self), GradientAudit(self))

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The kind's invariants."""
        from harness.kinds.objective.checks import objective_checks

        return objective_checks(self, subject)
