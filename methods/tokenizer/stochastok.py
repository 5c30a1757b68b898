"""StochasTok: training text in which random tokens are split in two, so that a model sees how words are spelled.

Of ids x_1..x_n, floor(p n) times: draw a position uniformly in the current (growing) list; if the token there can be
written as two tokens of the vocabulary, put one such pair, drawn uniformly, in its place; otherwise the attempt is
spent. The bytes of the text stay as they are. At evaluation the ids are the tokenizer's own.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from pydantic import Field

from harness.catalog import method
from harness.kinds.method import Check
from harness.kinds.tokenizer import Properties, Splits, TokenizerMethod, Vocabulary, split_table
from harness.kinds.tokenizer.base import forget_words
from harness.kinds.tokenizer.checks import measured_properties, readable_sample
from harness.kinds.tokenizer.consistency import Resegment, Resegmentation, document_seed
from harness.kinds.tokenizer.intrinsics import Intrinsics


def expand(ids: Sequence[int], splits: Splits, proportion: float, seed: int) -> list[int]:
    """Ids of one document with random tokens split; the same bytes, at most ``floor(proportion * n)`` ids more."""
    rng = random.Random(seed)
    made = list(ids)
    for _ in range(math.floor(proportion * len(ids) + 1e-9)):
        position = rng.randrange(len(made))
        pairs = splits.get(made[position])
        if pairs:
            made[position : position + 1] = rng.choice(pairs)
    return made


@method(
    id="stochastok",
    kind="tokenizer",
    title="StochasTok: random re-splitting of tokens",
    paper="arXiv:2506.01687",
    guarantee="exact",
    baseline="native",
    identity={"proportion": 0.0},
    details={
        "proportion": "reference code: 0.1 for language, 1.0 for the addition task",
        "splits": "reference code: every cut into two tokens, no condition on rank",
        "seed": "reconstruction: hash of seed, epoch and document; the release mixes two generators",
        "training": "not offered yet: expand() is the data step for a trainer, and the subject's model is unchanged",
        "evaluation": "canonical ids, so tasks read as the baseline; the probe resegmentation shows the model's gap",
    },
)
class StochasTok(TokenizerMethod):
    """``proportion`` of attempts per token; expansion is made per document and never touches special tokens."""

    changes: ClassVar[frozenset[str]] = frozenset()

    proportion: float = Field(0.1, ge=0, le=1, description="attempted splits per token")
    seed: int = Field(0, ge=0, description="seed of the expansion")

    def declared(self, tokenizer) -> Properties:  # type: ignore[no-untyped-def]
        """The subject's own properties; segmentations are drawn while training."""
        found = measured_properties(tokenizer)
        return Properties(
            lossless=found.lossless,
            byte_complete=found.byte_complete,
            crosses_words=found.crosses_words,
            stochastic=True,
        )

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The subject's tokenizer: evaluation is canonical."""
        return tokenizer

    @contextmanager
    def apply(self, subject, artifact=None) -> Iterator:  # type: ignore[no-untyped-def,type-arg]
        """The subject as it is."""
        yield subject

    def resegmenter(self, tokenizer) -> Resegment:  # type: ignore[no-untyped-def]
        """The expansion of a document's ids over this tokenizer's vocabulary, in epoch 0."""
        splits = split_table(Vocabulary(tokenizer))
        return lambda ids, document: expand(ids, splits, self.proportion, document_seed(self.seed, 0, document))

    def encode_call(self, tokenizer, texts) -> Callable[[], int]:  # type: ignore[no-untyped-def]
        """Canonical encoding, then expansion."""
        rewrite = self.resegmenter(tokenizer)

        def call() -> int:
            forget_words(tokenizer)
            return sum(len(rewrite(tokenizer.encode(text), i)) for i, text in enumerate(texts))

        return call

    def probes(self) -> Iterable:  # type: ignore[type-arg]
        """The tokenizer's intrinsics, and what re-splitting does to the model's opinion of a text."""
        return (Intrinsics(), Resegmentation(self.resegmenter))

    def checks(self, subject) -> Iterable[Check]:  # type: ignore[no-untyped-def]
        """Those of the kind, and that expansion keeps the bytes and its bounds."""
        yield from super().checks(subject)
        yield Check("expansion keeps bytes and bounds", lambda: self._bounds(subject.text_tokenizer()))

    def _bounds(self, tokenizer) -> None:  # type: ignore[no-untyped-def]
        rewrite, ids = self.resegmenter(tokenizer), readable_sample(tokenizer)
        for document in range(20):
            made = rewrite(ids, document)
            assert tokenizer.decode(made) == tokenizer.decode(ids), "the text changed"
            assert len(ids) <= len(made) <= len(ids) + math.floor(self.proportion * len(ids) + 1e-9)
            assert made[0] == ids[0], "the special id at the front changed"
            assert made == rewrite(ids, document), "the same seed gave other ids"
