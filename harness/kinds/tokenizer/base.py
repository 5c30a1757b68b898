"""Interface of the kind ``tokenizer``: a method makes a tokenizer, the kind puts it on the subject's model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from harness.errors import Refused, UsageError
from harness.kinds.method import Artifact, Check, Method, PrepareContext, Probe, Workload
from harness.subjects.decode import AutoregressiveDecoder
from harness.subjects.subject import Subject
from harness.subjects.tokenizer import Tokenizer
from harness.toolkit.corpora import documents

if TYPE_CHECKING:
    from harness.kinds.tokenizer.initialise import Initialiser

UNSEEN_BYTES = 1_000_000
TRAIN_WORKLOAD_BYTES = 100_000


@dataclass(frozen=True, kw_only=True)
class Properties:
    """What a tokenizer declares of itself; ``zoo check`` holds each against the tokenizer.

    ``lossless``: any text decodes to itself, byte for byte. ``byte_complete``: each of the 256 bytes is a token.
    ``crosses_words``: a token may hold blanks between other characters. ``stochastic``: the method draws among
    segmentations of a text (``encode`` itself is always deterministic). ``normalizes``: token bytes are those of
    another writing of the text (small letters, one form for several).
    """

    lossless: bool
    byte_complete: bool
    crosses_words: bool = False
    stochastic: bool = False
    normalizes: bool = False


def unseen_texts(max_bytes: int = UNSEEN_BYTES) -> list[str]:
    """Shuffled test documents, prose and code, that no trainer of the zoo saw by default."""
    prose = documents("python_docs", "test", max_bytes)
    room = max_bytes - sum(len(text.encode()) for text in prose)
    code = documents("python_source", "test", room) if room > 0 else []
    # By hash: prose and code alternate, and no state of a random generator is needed.
    return sorted(prose + code, key=lambda text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())


def forget_words(tokenizer: Tokenizer) -> None:
    """Empty the library's cache of words, so that each timed call does the same work."""
    backend = getattr(getattr(tokenizer, "inner", None), "backend_tokenizer", None)
    clear = getattr(tokenizer, "forget", None) or getattr(getattr(backend, "model", None), "_clear_cache", None)
    if clear is not None:
        clear()


def encode_all(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """Encode the texts one by one on the calling thread; returns the number of ids."""
    forget_words(tokenizer)
    return sum(len(tokenizer.encode(text)) for text in texts)


def content_name(name: str, artifact: Artifact) -> str:
    """A name that differs where the artifact does: requests are cached under the tokenizer's name."""
    content = artifact if isinstance(artifact, bytes) else str(artifact).encode()
    return f"{name}-{hashlib.sha256(content).hexdigest()[:8]}"


class TokenizerMethod(Method):
    """Gives the subject another tokenizer, with the embeddings transplanted onto it.

    A subclass declares its ``properties`` and overrides :meth:`make`; one that trains sets ``trains``, has a field
    ``corpus`` and overrides :meth:`train` as well. ``init`` names how the rows of tokens that the model lacks begin.
    The body of the model is shared with the given subject.
    """

    properties: ClassVar[Properties]
    corpus: str = "python_docs"
    train_bytes: int | None = None
    init: str = "fvt"

    def declared(self, tokenizer: Tokenizer) -> Properties:
        """What holds of the tokenizer this method makes from the subject's."""
        return self.properties

    def make(self, tokenizer: Tokenizer, artifact: Artifact) -> Tokenizer:
        """The new tokenizer; special tokens are taken over from the subject's."""
        raise NotImplementedError(f"{self.card.id} does not override make")

    def train(self, texts: Iterable[str], seed: int) -> Artifact:
        """Learn from texts; deterministic, and the result survives ``torch.save`` (a string or plain tensors)."""
        raise NotImplementedError(f"{self.card.id} declares trains = True but has no train")

    def initialiser(self, artifact: Artifact) -> Initialiser:
        """What makes the rows of tokens that the model lacks."""
        from harness.kinds.tokenizer.initialise import INITIALISERS

        return INITIALISERS[self.init]

    def learn(self, subject: Subject, texts: Iterable[str], seed: int) -> Artifact:
        """As :meth:`train`, for methods whose artifact holds something of the subject's model as well."""
        return self.train(texts, seed)

    def prepare(self, subject: Subject, ctx: PrepareContext) -> Artifact:
        """Train on the training split of ``corpus``."""
        return self.learn(subject, documents(self.corpus, "train", self.train_bytes, ctx.seed), ctx.seed)

    @contextmanager
    def apply(self, subject: Subject, artifact: Artifact = None) -> Iterator[Subject]:
        """The subject with the new tokenizer and a model that has rows for it; the given one is not touched."""
        from harness.kinds.tokenizer.transplant import transplant

        if not isinstance(subject.decoder, AutoregressiveDecoder):
            raise Refused(
                f"{self.card.id} cannot follow {'+'.join(subject.stack)}, whose drafter holds ids of the old "
                "vocabulary; write the tokenizer first"
            )
        if self.trains and artifact is None:
            raise UsageError(f"{self.card.id} needs its artifact; make it with: zoo train {self.card.id}")
        old = subject.text_tokenizer()
        new = self.make(old, artifact)
        model, report = transplant(subject.model, old, new, self.initialiser(artifact))
        model.transplant_report = report
        yield replace(subject, model=model, tokenizer=new)

    def tokenizer_of(self, subject: Subject) -> Tokenizer:
        """This method's tokenizer for a subject: the one it has already, else a new one, trained if need be."""
        old = subject.text_tokenizer()
        if self.signature in subject.stack:
            return old
        texts = documents(self.corpus, "train", self.train_bytes) if self.trains else []
        return self.make(old, self.train(texts, 0) if self.trains else None)

    def workloads(self, subject: Subject) -> Iterable[Workload]:
        """``encode`` over text that was not trained on, document by document; ``train`` for methods that train."""
        texts = unseen_texts()

        def make() -> Callable[[], Any]:
            return self.encode_call(self.tokenizer_of(subject), texts)

        yield Workload(name="encode", make=make, units={"bytes": sum(len(t.encode()) for t in texts)})
        if self.trains:
            yield self.train_workload(documents(self.corpus, "train", TRAIN_WORKLOAD_BYTES))

    def encode_call(self, tokenizer: Tokenizer, texts: Sequence[str]) -> Callable[[], Any]:
        """What the workload ``encode`` times; it returns the number of ids."""
        return partial(encode_all, tokenizer, texts)

    def train_workload(self, texts: Sequence[str]) -> Workload:
        """One training run on a small corpus, beside the Rust BPE trainer's to as many tokens; they learn other things.

        A subclass whose training has an equal gives that as the reference.
        """
        from harness.kinds.tokenizer.bpe import train_bpe

        size: int | None = getattr(self, "vocab_size", None)
        return Workload(
            name="train",
            make=lambda: lambda: self.train(texts, 0),
            reference=None if size is None else lambda: lambda: train_bpe(texts, size),
            units={"bytes": sum(len(text.encode()) for text in texts)},
        )

    def probes(self) -> Iterable[Probe]:
        """Measurements of the tokenizer on test prose and, where it learnt from other text, on that text's test split;
        parity over languages; and what the transplant did."""
        from harness.kinds.tokenizer.capacity import Capacity
        from harness.kinds.tokenizer.intrinsics import Intrinsics, TransplantProbe
        from harness.kinds.tokenizer.parity import Parity

        own = () if self.corpus == Intrinsics.corpus else (Intrinsics(self.corpus), Capacity(self.corpus))
        return (Intrinsics(), Capacity(), *own, Parity(), TransplantProbe())

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The kind's invariants."""
        from harness.kinds.tokenizer.checks import tokenizer_checks

        return tokenizer_checks(self, subject)
