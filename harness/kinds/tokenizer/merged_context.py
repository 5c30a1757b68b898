"""Contexts read in merged tokens: ids beyond the vocabulary whose input rows are the mean of their parts' rows.

Only what a model reads before it answers is merged. Continuations and new tokens keep their own ids and output rows,
so what is scored are the same events as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import Refused
from harness.kinds.method import Measurement
from harness.kinds.tokenizer.intrinsics import ratio
from harness.kinds.tokenizer.transplant import replace_modules
from harness.stats.rates import draw_weights
from harness.subjects.requests import GenerateRequest, Generation, Score, ScoreRequest
from harness.subjects.subject import Decoder, Scorer, Subject
from harness.subjects.tokenizer import Tokenizer
from harness.toolkit.corpora import documents

Merge = Callable[[Sequence[int]], list[tuple[int, ...]]]
"""The parts, one or several ids, of each token of a merged context."""


class MergedEmbedding(nn.Module):
    """The model's embedding layer, and behind its ids those of merged tokens, which live for one call."""

    def __init__(self, inner: nn.Embedding) -> None:
        super().__init__()
        self.inner = inner
        self.ids: dict[tuple[int, ...], int] = {}

    @property
    def weight(self) -> Tensor:
        """The model's own rows."""
        return self.inner.weight

    def id_of(self, parts: tuple[int, ...]) -> int:
        """The part itself where it is the only one, else the merged token's id."""
        if len(parts) == 1:
            return parts[0]
        return self.ids.setdefault(parts, self.inner.num_embeddings + len(self.ids))

    def forward(self, ids: Tensor) -> Tensor:
        """Rows of the ids, ``[..., D]``."""
        merged = ids >= self.inner.num_embeddings
        if not self.ids or not bool(merged.any()):
            return self.inner(ids)  # type: ignore[no-any-return]
        rows = self.inner(ids.masked_fill(merged, 0))
        held = list(self.ids)
        wanted, place = ids[merged].unique(return_inverse=True)
        means = [self._mean(held[i - self.inner.num_embeddings]) for i in wanted.tolist()]
        rows[merged] = torch.stack(means)[place]
        return rows  # type: ignore[no-any-return]

    def _mean(self, parts: tuple[int, ...]) -> Tensor:
        rows_PD = self.inner(torch.tensor(parts, device=self.inner.weight.device))
        return rows_PD.float().mean(0).to(rows_PD.dtype)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ContextMerger:
    """Rewrites contexts one by one, so that an answer depends on its own context alone."""

    merge: Merge
    embedding: MergedEmbedding

    def start(self) -> None:
        """Forget the merged tokens of earlier calls."""
        self.embedding.ids.clear()

    def rewrite(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The context in merged ids."""
        return tuple(self.embedding.id_of(parts) for parts in self.merge(ids))


@dataclass(frozen=True)
class MergingScorer:
    """Scores continuations after merged contexts."""

    inner: Scorer
    merger: ContextMerger

    def score(self, subject: Subject, requests: Sequence[ScoreRequest], batch_size: int) -> list[Score]:
        """One score a request, in order; equal contexts are merged alike and share their prefill."""
        self.merger.start()
        merged = [replace(r, context=self.merger.rewrite(r.context)) for r in requests]
        return self.inner.score(subject, merged, batch_size)


@dataclass(frozen=True)
class MergingDecoder:
    """Continues merged prompts."""

    inner: Decoder
    merger: ContextMerger

    def snapshot(self) -> Any:
        """What the decoder within has learnt."""
        return self.inner.snapshot()

    def restore(self, state: object) -> None:
        """Go back to a snapshot."""
        self.inner.restore(state)

    def generate(self, subject: Subject, request: GenerateRequest) -> list[Generation]:
        """One generation a prompt, in order. Processors would read ids that they do not know, so they are refused."""
        self.merger.start()
        prompts = [self.merger.rewrite(prompt) for prompt in request.prompts]
        if self.merger.embedding.ids and (request.processors or request.repetition_penalty != 1.0):
            raise Refused(
                f"{subject.full_name} reads merged tokens, which a repetition penalty and logits processors do not know"
            )
        return self.inner.generate(subject, replace(request, prompts=prompts))


@dataclass
class MergedLength:
    """The probe ``merged_length``: ``context_length_ratio`` = merged tokens / own tokens of test documents."""

    merge_of: Callable[[Tokenizer], Merge]
    corpus: str = "python_source"
    max_documents: int = 16
    name: str = "merged_length"

    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """The ratio, with its interval over resampled documents."""
        tokenizer = subject.text_tokenizer()
        ids_D = [tokenizer.encode(t) for t in documents(self.corpus, "test")[: self.max_documents]]
        merge = self.merge_of(tokenizer)
        lengths = [len(merge(ids)) for ids in ids_D]
        return (ratio("context_length_ratio", lengths, list(map(len, ids_D)), draw_weights(len(ids_D))),)


def reading_merged(subject: Subject, merge: Merge) -> Subject:
    """The subject with merged contexts; its model's body and rows are shared. :class:`Refused` where it cannot be."""
    embed = subject.model.get_input_embeddings()
    if not isinstance(embed, nn.Embedding):
        raise Refused(f"{type(subject.model).__name__} has no plain embedding layer to read merged tokens through")
    merger = ContextMerger(merge, MergedEmbedding(embed))
    return replace(
        subject,
        model=replace_modules(subject.model, {embed: merger.embedding}),
        scorer=MergingScorer(subject.scorer, merger),
        decoder=MergingDecoder(subject.decoder, merger),
    )
