"""How much a model's opinion of a text depends on how the text was cut into tokens."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.errors import Refused
from harness.kinds.method import Measurement, Probe
from harness.kinds.tokenizer.base import TokenizerMethod
from harness.kinds.tokenizer.intrinsics import ratio
from harness.stats.rates import draw_weights
from harness.subjects.requests import ScoreRequest
from harness.subjects.subject import Subject
from harness.subjects.tokenizer import Tokenizer
from harness.toolkit.corpora import documents

Resegment = Callable[[Sequence[int], int], list[int]]
"""Other ids of the same bytes, for ids and a document's number."""


def document_seed(seed: int, epoch: int, document: int) -> int:
    """A seed that depends on these three alone, so the number of workers and their order do not matter."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{epoch}:{document}".encode()).digest()[:8], "big")


def log_probabilities(subject: Subject, ids_D: Sequence[Sequence[int]]) -> list[float]:
    """Log-probability in nats of each id list after the tokenizer's prefix id, which is not counted."""
    prefix = (subject.text_tokenizer().prefix_id,)
    return [s.logprob for s in subject.score([ScoreRequest(context=prefix, continuation=tuple(i)) for i in ids_D])]


@dataclass
class Resegmentation:
    """The probe ``resegmentation`` on test prose, over the documents that fit the model's context either way.

    ``resegmentation_gap`` = sum |log2 p(canonical ids) - log2 p(other ids)| / sum bytes, in bits per byte;
    ``resegmentation_growth`` = other ids / canonical ids. ``resegmenter`` makes the rewriting for a tokenizer.
    """

    resegmenter: Callable[[Tokenizer], Resegment]
    max_documents: int = 32
    name: str = "resegmentation"

    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """Both figures, with intervals over resampled documents."""
        tokenizer = subject.text_tokenizer()
        rewrite = self.resegmenter(tokenizer)
        texts = documents("python_docs", "test")
        pairs = [(t, ids, rewrite(ids, i)) for i, t in enumerate(texts) if (ids := tokenizer.encode(t))]
        fitting = [p for p in pairs if max(len(p[1]), len(p[2])) < subject.max_length][: self.max_documents]
        if not fitting:
            raise Refused(f"{subject.name} reads {subject.max_length} tokens, too few for any test document")
        canonical = log_probabilities(subject, [ids for _, ids, _ in fitting])
        other = log_probabilities(subject, [ids for _, _, ids in fitting])
        gaps = [abs(a - b) / math.log(2) for a, b in zip(canonical, other, strict=True)]
        weights_RD = draw_weights(len(fitting))
        return (
            ratio("resegmentation_gap", gaps, [len(t.encode()) for t, _, _ in fitting], weights_RD),
            ratio("resegmentation_growth", [len(o) for *_, o in fitting], [len(c) for _, c, _ in fitting], weights_RD),
        )


class DrawsSegmentations(TokenizerMethod):
    """A method that offers training text in other segmentations, drawn word by word; evaluation uses the canonical one.

    A subclass has a field ``seed`` and overrides :meth:`drawer`.
    """

    seed: int = 0

    def drawer(self, tokenizer: Tokenizer) -> Callable[[str, random.Random], list[int]]:
        """What gives drawn ids of a text under this method's tokenizer."""
        raise NotImplementedError(f"{self.card.id} does not override drawer")

    def resegmenter(self, tokenizer: Tokenizer) -> Resegment:
        """The text of the ids in drawn ids, in epoch 0."""
        draw = self.drawer(tokenizer)
        return lambda ids, document: draw(tokenizer.decode(ids), random.Random(document_seed(self.seed, 0, document)))

    def probes(self) -> Iterable[Probe]:
        """The kind's, and what another segmentation does to the model's opinion of a text."""
        return (*super().probes(), Resegmentation(self.resegmenter))
