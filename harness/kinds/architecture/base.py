"""Interface of the kind ``architecture``: a method builds a model of its own, the kind trains it at a fixed budget.

Of the given subject only the tokenizer, the device and the type are used, so every architecture reads the same text,
in the same tokens unless it brings a tokenizer of its own, and the budget is what is held equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from harness.errors import Refused
from harness.kinds.architecture.ledger import counted_flops
from harness.kinds.architecture.training import descend, stage_measurements
from harness.kinds.method import Artifact, Check, Measurement, Method, PrepareContext, Probe
from harness.subjects.subject import Subject
from harness.subjects.tokenizer import Tokenizer
from harness.toolkit.rows import Batch, batches, windows


@contextmanager
def seeded(subject: Subject, seed: int) -> Iterator[None]:
    """Random numbers from a seed of their own; the caller's go on as if nothing had been drawn."""
    devices = [subject.device] if subject.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ArchitectureMethod(Method):
    """A model trained from random weights. A subclass overrides ``build``, ``loss`` and ``subject_of``.

    It may override :meth:`fit` where a training has several stages, and :meth:`check_twin` where its shape has to
    shrink for the checks.
    """

    trains: ClassVar[bool] = True
    replaces: ClassVar[frozenset[str]] = frozenset({"weights", "decoder"})

    steps: int = Field(400, ge=1, description="optimizer steps")
    batch: int = Field(8, ge=1, description="rows of one step")
    length: int = Field(128, ge=8, description="tokens of a row")
    learning_rate: float = Field(2e-3, gt=0, description="of AdamW at its highest, then falling as a cosine")
    corpus: str = Field("python_docs", description="text to train on: a name, or the path of a file or a folder")
    flops: float = Field(0, ge=0, description="training FLOPs that decide the steps; 0: steps stands")

    def tokenizer_of(self, subject: Subject) -> Tokenizer:
        """What the model reads text through: the subject's tokenizer, or one of the architecture's own."""
        return subject.text_tokenizer()

    def build(self, subject: Subject) -> nn.Module:
        """An untrained model for :meth:`tokenizer_of` the subject, on its device."""
        raise NotImplementedError(f"{self.card.id} does not override build")

    def loss(self, model: Any, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """The scalar that training lowers. What stands where the mask is False must not count."""
        raise NotImplementedError(f"{self.card.id} does not override loss")

    def subject_of(self, subject: Subject, model: Any) -> Subject:
        """How a trained model scores and generates."""
        raise NotImplementedError(f"{self.card.id} does not override subject_of")

    def check_twin(self) -> ArchitectureMethod:
        """The method as it is checked, of a size that trains in milliseconds."""
        return self

    def flops_of_step(self, model: Any, ids_BT: Tensor, mask_BT: Tensor) -> float:
        """FLOPs of one optimizer step on these rows. Override where training does more than lower ``loss``."""
        return counted_flops(lambda: self.loss(model, ids_BT, mask_BT))

    def step_flops(self, subject: Subject, seed: int = 0) -> float:
        """FLOPs of one optimizer step of the untrained model on rows of the corpus."""
        rows = windows(self.tokenizer_of(subject), self.corpus, "train", self.batch, self.length, seed)
        (ids_BT, mask_BT), *_ = batches(rows, self.batch, 1, seed, subject.device)
        with torch.inference_mode(False), torch.enable_grad(), seeded(subject, seed):
            return self.flops_of_step(self.build(subject).float(), ids_BT, mask_BT)

    def fit(self, model: nn.Module, rows: Iterator[Batch], low_precision: bool) -> list[dict[str, Any]]:
        """Train in place on ``steps`` batches; returns one record of :func:`descend` a stage."""
        rates = [(self.learning_rate, model.parameters())]
        return [descend("train", model, self.loss, rows, self.steps, rates, low_precision)]

    def prepare(self, subject: Subject, ctx: PrepareContext) -> Artifact:
        """Train in float32; the artifact holds the ``weights`` in the subject's type and the ``stages``' records.

        Where ``flops`` decides the steps, it also holds the ``flops`` that were spent.
        """
        if self.flops:
            cost = self.step_flops(subject, ctx.seed)
            if self.flops < cost:
                raise Refused(f"{self.card.id}: one step takes {cost:.3g} FLOPs, more than flops={self.flops:.3g}")
            paid = replace(self, steps=int(self.flops // cost), flops=0)
            return {**paid.prepare(subject, ctx), "flops": paid.steps * cost}
        held = windows(self.tokenizer_of(subject), self.corpus, "train", self.steps * self.batch, self.length, ctx.seed)
        rows = batches(held, self.batch, self.steps, ctx.seed, subject.device)
        with torch.inference_mode(False), torch.enable_grad(), seeded(subject, ctx.seed):
            model = self.build(subject).float()
            stages = self.fit(model, rows, subject.dtype == torch.bfloat16)
        weights = {
            name: value.detach().to(subject.dtype) if value.is_floating_point() else value
            for name, value in model.state_dict().items()
        }
        return {"weights": weights, "stages": stages}

    @contextmanager
    def apply(self, subject: Subject, artifact: Artifact = None) -> Iterator[Subject]:
        """The trained model in the place of the subject's."""
        self.require_weights(artifact)
        with torch.inference_mode(False), seeded(subject, 0):
            model = self.build(subject).to(subject.dtype)
        model.load_state_dict(artifact["weights"])
        yield self.subject_of(subject, model.eval())

    def training_measurements(self, artifact: Artifact) -> Sequence[Measurement]:
        """Steps, tokens, the loss at the end, FLOPs where they were counted, and each stage's seconds."""
        stages = artifact["stages"]
        spent = [Measurement("train_flops", artifact["flops"])] if "flops" in artifact else []
        read = Measurement("corpus_tokens", float(sum(stage["tokens"] for stage in stages)))
        return [read, *spent, *stage_measurements(stages)]

    def probes(self) -> Iterable[Probe]:
        """The trained model on the corpus's test split: ``held_out`` token by token, ``next_word`` word by word."""
        from harness.kinds.architecture.held_out import HeldOut
        from harness.kinds.architecture.next_word import NextWord

        return HeldOut(self.corpus, self.length), NextWord(self.corpus, self.steps * self.batch * self.length)

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The kind's invariants."""
        from harness.kinds.architecture.checks import architecture_checks

        return architecture_checks(self, subject)
