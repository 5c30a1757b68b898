"""Supervised fine-tuning: a third base of the kind, for objectives that learn from given text.

A subclass overrides :meth:`FineTuningMethod.loss` (which tokens weigh how much), :meth:`FineTuningMethod.training`
(how the model runs while it learns) or :meth:`FineTuningMethod.get_ready` (what is made before). Adapters of low rank
are trained on a copy and merged into its weights, so that what is evaluated is an ordinary model with its ordinary
forward.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from harness.errors import Refused
from harness.kinds.method import Artifact, Check, Measurement, Method, PrepareContext, Workload
from harness.kinds.objective.adapters import with_adapters
from harness.kinds.objective.copies import private_copy, training_copy
from harness.subjects.subject import TRAIN, Subject
from harness.toolkit.rows import Batch, batches, windows
from harness.toolkit.trainer import optimizer_step

HELD_OUT_ROWS = 8
FOREVER = 1 << 30
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj")


@plain_dataclass(frozen=True)
class TextBatch:
    """Ids ``[B, T]``, a mask ``[B, T]`` of real tokens (padding on the right), and each token's weight in the loss.

    ``weight_BT`` belongs to the token itself, not to the one before that predicts it; a row's first token, prompts and
    padding have 0.
    """

    ids_BT: Tensor
    mask_BT: Tensor
    weight_BT: Tensor

    @classmethod
    def of(cls, rows: Batch) -> TextBatch:
        """Every real token but each row's first weighs 1."""
        weight_BT = rows[1].float()
        weight_BT[:, 0] = 0.0
        return cls(*rows, weight_BT)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FineTuningMethod(Method):
    """Adapters on the attention's projections, trained by the mean cross-entropy of a corpus' tokens."""

    trains: ClassVar[bool] = True
    replaces: ClassVar[frozenset[str]] = frozenset({"weights"})

    corpus: str = Field("python_docs", description="corpus of the catalog, or a text file or folder")
    rows: int = Field(128, ge=1, description="rows of text that are learnt from")
    length: int = Field(512, ge=2, description="tokens of a row")
    steps: int = Field(60, ge=1, description="optimizer steps")
    rows_per_step: int = Field(1, ge=1, description="rows of one step")
    learning_rate: float = Field(2e-4, gt=0, description="of AdamW at its highest, then falling as a cosine")
    rank: int = Field(8, ge=1, description="rank of the adapters")
    alpha: float = Field(16.0, gt=0, description="the adapters' product is multiplied by alpha / rank")
    checkpointing: bool = Field(False, description="keep each layer's input alone and compute the rest anew")

    def loss(self, model: Any, batch: TextBatch) -> Tensor:
        """The scalar loss of a batch."""
        logits_BTV = model(input_ids=batch.ids_BT, use_cache=False).logits
        return weighted_nll(logits_BTV[:, :-1], batch.ids_BT[:, 1:], batch.weight_BT[:, 1:]) / tokens_of(batch)

    def get_ready(self, model: Any, rows: Iterator[Batch]) -> None:
        """What is made once before the first step, from batches of the text that will be learnt."""

    def training(self, model: Any, batch: TextBatch) -> AbstractContextManager[None]:
        """What is changed in the model during one step; it must be put back on exit."""
        return nullcontext()

    def update(self, model: Any, optimizer: torch.optim.Optimizer, batch: TextBatch) -> float:
        """One optimizer step; returns the loss."""
        with self.training(model, batch):
            loss = self.loss(model, batch)
            optimizer_step(optimizer, loss)
        return float(loss.detach())

    def learner(self, subject: Subject, seed: int) -> tuple[Any, dict[str, nn.Parameter]]:
        """A float32 or float64 copy of the model in training mode, and its adapters' parameters."""
        model = training_copy(subject).model
        model.set_attn_implementation("sdpa")
        with_adapters(model, ADAPTED, self.rank, self.alpha, seed)
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if self.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        return model.train(), trainable

    def prepare(self, subject: Subject, ctx: PrepareContext) -> Artifact:
        """Train; the artifact holds the adapters and a record of the steps and of held-out text."""
        subject.require(TRAIN, self.card.id)
        tokenizer = subject.text_tokenizer()
        rows = windows(tokenizer, self.corpus, "train", self.rows, self.length, ctx.seed)
        held_out = windows(tokenizer, self.corpus, "valid", HELD_OUT_ROWS, self.length, 0)
        with torch.inference_mode(False), torch.enable_grad():
            model, trainable = self.learner(subject, ctx.seed)
            self.get_ready(model, batches(rows, self.rows_per_step, FOREVER, ctx.seed + 1, subject.device))
            optimizer = torch.optim.AdamW(trainable.values(), lr=self.learning_rate, weight_decay=0.0)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
            losses, tokens = [], 0
            for batch in map(TextBatch.of, batches(rows, self.rows_per_step, self.steps, ctx.seed, subject.device)):
                losses.append(self.update(model, optimizer, batch))
                schedule.step()
                tokens += int(batch.mask_BT.sum())
        figures = {"held_out_loss": held_out_loss(model.eval(), held_out), "tokens": float(tokens)}
        state = {name: value.detach().cpu().clone() for name, value in trainable.items()}
        return {"state": state, "losses": losses, "figures": figures}

    def _rate(self, step: int) -> float:
        return min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    @contextmanager
    def apply(self, subject: Subject, artifact: Artifact = None) -> Iterator[Subject]:
        """The subject with a copy of its model into which the adapters were merged; nothing else is changed."""
        if artifact is None:
            raise Refused(f"{self.card.id} has no trained adapters; prepare it first (zoo train {self.card.id})")
        tuned = private_copy(subject)
        adapted = with_adapters(tuned.model, ADAPTED, self.rank, self.alpha, 0)
        tuned.model.load_state_dict(artifact["state"], strict=False)
        adapted.merge_and_unload()
        tuned.model.eval()
        yield tuned

    def training_measurements(self, artifact: Artifact) -> Sequence[Measurement]:
        """What the training cost and what it gave, on text that was held out."""
        last = artifact["losses"][-max(1, self.steps // 10) :]
        return [
            Measurement("train_loss_end", sum(last) / len(last), n=len(last)),
            Measurement("held_out_loss", artifact["figures"]["held_out_loss"], n=HELD_OUT_ROWS),
            Measurement("trained_tokens", artifact["figures"]["tokens"]),
            Measurement("updates", float(self.steps)),
        ]

    def workloads(self, subject: Subject) -> Iterable[Workload]:
        """``finetune update``: one step on rows of the corpus, put back after each call."""
        from harness.kinds.objective.finetune_update import update_workload

        return (update_workload(self, subject),)

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The invariants of fine-tuning."""
        from harness.kinds.objective.finetune_checks import finetune_checks

        return finetune_checks(self, subject)


def weighted_nll(logits_NV: Tensor, target_N: Tensor, weight_N: Tensor) -> Tensor:
    """Sum of weight times negative log-likelihood over any leading dimensions, in float32 or better."""
    kind = torch.promote_types(logits_NV.dtype, torch.float32)
    flat = logits_NV.flatten(0, -2).to(kind)
    nll = nn.functional.cross_entropy(flat, target_N.flatten(), reduction="none")
    return (nll * weight_N.flatten().to(kind)).sum()


def tokens_of(batch: TextBatch) -> Tensor:
    """Total weight of the batch's tokens, at least 1."""
    return batch.weight_BT[:, 1:].sum().clamp(min=1)


@torch.no_grad()
def held_out_loss(model: Any, rows: Batch) -> float:
    """Mean cross-entropy, in nats a token, row by row through the model's ordinary forward."""
    device = next(model.parameters()).device
    total, tokens = 0.0, 0.0
    for ids_T, mask_T in zip(*rows, strict=True):
        batch = TextBatch.of((ids_T[None].to(device), mask_T[None].to(device)))
        logits_BTV = model(input_ids=batch.ids_BT, use_cache=False).logits
        total += float(weighted_nll(logits_BTV[:, :-1], batch.ids_BT[:, 1:], batch.weight_BT[:, 1:]))
        tokens += float(batch.weight_BT.sum())
    return total / max(1.0, tokens)
