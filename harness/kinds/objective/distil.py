"""Distillation of a small draft from the target: a second base of the kind, for objectives that imitate, not reinforce.

The artifact is a draft for the speculative methods: the student's config and weights. ``apply`` yields the student as
the subject, so that every task can ask it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from harness.kinds.method import Artifact, Check, Measurement, Method, PrepareContext
from harness.subjects.subject import GENERATE, Subject
from harness.toolkit.students import TeacherText, batches, new_student, opened_student, student_config, teacher_texts
from harness.toolkit.trainer import adamw, optimizer_step

HELD_OUT = 16
"""Texts that are measured on, not trained on."""


def forward_kl(target_logits_NV: Tensor, student_logits_NV: Tensor) -> Tensor:
    """KL(target || student) of each token, ``[N]``, over the full vocabulary in float32."""
    target = target_logits_NV.float().log_softmax(-1)
    student = student_logits_NV.float().log_softmax(-1)
    return (target.exp() * (target - student)).sum(-1)


def even_weights(loss_N: Tensor) -> Tensor:
    """``[N]``, the weights of a mean over all tokens."""
    return torch.full_like(loss_N, 1 / len(loss_N))


def student_logits(student: Any, texts: Sequence[TeacherText]) -> Tensor:
    """The student's logits ``[N, V]`` where the target wrote its tokens, text after text; padding is on the right."""
    rows = [[*t.prompt, *t.continuation[:-1]] for t in texts]
    width = max(map(len, rows))
    device = student.device
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    hidden = student.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    kept = [hidden[i, len(t.prompt) - 1 : len(t.prompt) + len(t.continuation) - 1] for i, t in enumerate(texts)]
    return student.get_output_embeddings()(torch.cat(kept))  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DistillationMethod(Method):
    """A student of ``layers`` layers learns the target's law on the target's own texts. A subclass chooses tokens.

    A subclass overrides :meth:`token_weights`, and ``needs_reference`` where it compares with a student that was
    distilled plainly before, from the same initial weights.
    """

    trains: ClassVar[bool] = True
    replaces: ClassVar[frozenset[str]] = frozenset({"weights", "decoder"})

    hidden: int = Field(192, ge=4, description="width of the student")
    layers: int = Field(2, ge=1, description="layers of the student")
    texts: int = Field(320, ge=HELD_OUT + 1, description="answers of the target that are learnt from")
    new_tokens: int = Field(96, ge=2, description="longest answer")
    steps: int = Field(400, ge=1, description="optimizer steps")
    tokens_per_step: int = Field(256, ge=1, description="tokens of the target in one step")
    learning_rate: float = Field(2e-3, gt=0, description="of AdamW at its highest, then falling as a cosine")

    @property
    def needs_reference(self) -> bool:
        """Whether a plainly distilled student is trained first."""
        return False

    def token_weights(self, loss_N: Tensor, reference_N: Tensor | None, step: int) -> Tensor:
        """Weight of each token's loss, ``[N]``, without gradient; the loss is their weighted sum."""
        return even_weights(loss_N)

    def prepare(self, subject: Subject, ctx: PrepareContext) -> Artifact:
        """Let the target write, train, and measure on texts that were held out."""
        texts = teacher_texts(subject, self.texts, self.new_tokens, ctx.seed)
        train, held_out = texts[HELD_OUT:], texts[:HELD_OUT]
        config = student_config(subject, self.hidden, self.layers)
        with torch.inference_mode(False), torch.enable_grad():
            reference = None
            if self.needs_reference:
                reference = new_student(subject, config, ctx.seed)
                self.distil(subject, reference, train, ctx.seed, None)
            student = new_student(subject, config, ctx.seed)
            losses = self.distil(subject, student, train, ctx.seed, reference)
        figures = agreement(subject, student, held_out)
        figures |= {"train_tokens": float(sum(len(t.continuation) for t in train)), "loss": losses[-1]}
        weights = {k: v.to(subject.dtype).clone() for k, v in student.state_dict().items() if k != "lm_head.weight"}
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        return {"config": config, "weights": weights, "figures": figures}

    def distil(
        self, subject: Subject, student: Any, texts: Sequence[TeacherText], seed: int, reference: Any
    ) -> list[float]:
        """Train the student; without ``reference`` on all tokens alike. Returns each step's mean KL in nats."""
        optimizer = adamw(student, self.learning_rate)
        head = subject.model.get_output_embeddings()
        losses = []
        student.train()
        for step, batch in enumerate(batches(texts, self.tokens_per_step, self.steps, seed)):
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * min(1, (step + 1) / 20) * self._decay(step)
            with torch.no_grad():
                target_NV = head(torch.cat([t.hidden_CH for t in batch]))
                of_reference = None if reference is None else forward_kl(target_NV, student_logits(reference, batch))
            with torch.autocast(subject.device.type, torch.bfloat16, enabled=subject.dtype == torch.bfloat16):
                logits_NV = student_logits(student, batch)
            loss_N = forward_kl(target_NV, logits_NV)
            plain = self.needs_reference and reference is None
            seen_N = loss_N.detach()
            weights_N = even_weights(seen_N) if plain else self.token_weights(seen_N, of_reference, step)
            optimizer_step(optimizer, (weights_N * loss_N).sum())
            losses.append(float(seen_N.mean()))
        student.eval()
        return losses

    def _decay(self, step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def training_measurements(self, artifact: Artifact) -> Sequence[Measurement]:
        """How well the student follows the target on held-out texts."""
        found = artifact["figures"]
        return [
            Measurement("draft_overlap", found["overlap"], n=int(found["tokens"])),
            Measurement("draft_greedy_match", found["greedy_match"], n=int(found["tokens"])),
            Measurement("train_tokens", found["train_tokens"]),
        ]

    @contextmanager
    def apply(self, subject: Subject, artifact: Artifact = None) -> Iterator[Subject]:
        """The student in the target's place."""
        subject.require(GENERATE, self.card.id)
        yield opened_student(subject, artifact)

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The invariants of distillation."""
        from harness.kinds.objective.distil_checks import distillation_checks

        return distillation_checks(self, subject)


def agreement(subject: Subject, student: Any, texts: Sequence[TeacherText]) -> dict[str, float]:
    """Mean of sum(min(p, q)), which is the acceptance of one sampled draft, and the share of equal best tokens."""
    head = subject.model.get_output_embeddings()
    overlap, match, tokens = 0.0, 0, 0
    with torch.no_grad():
        for text in texts:
            target_NV, ours_NV = head(text.hidden_CH).float(), student_logits(student, [text]).float()
            overlap += float(torch.minimum(target_NV.softmax(-1), ours_NV.softmax(-1)).sum())
            match += int((target_NV.argmax(-1) == ours_NV.argmax(-1)).sum())
            tokens += len(text.continuation)
    return {"overlap": overlap / tokens, "greedy_match": match / tokens, "tokens": float(tokens)}


Selection = Literal["gap", "random", "bottom"]
"""Which tokens are kept: those with the largest gap to the reference, any, or those with the smallest gap."""


def keep_tokens(score_N: Tensor, share: float, normalize: Literal["all", "kept"]) -> Tensor:
    """Weights ``[N]``: equal for the ``ceil(share * N)`` tokens with the highest scores and their ties, 0 elsewhere."""
    count = max(1, math.ceil(share * len(score_N) - 1e-9))
    least = score_N.topk(count).values[-1]
    kept_N = (score_N >= least).to(score_N.dtype)
    return kept_N / (len(score_N) if normalize == "all" else kept_N.sum())
