"""Alias masking: no word is written again in other tokens than it had in the source.

While a word is copied, let g be the ids written since its place began and s its ids in the source. A next id t is
forbidden where bytes(g + t), blanks around it left out, is the word and g + t is not s: its logit becomes minus
infinity. The word can be kept only in its own tokens, or be replaced. Beside it stands the probe of the same paper: how
often a model, asked for another word, writes the same one in other tokens (a phantom edit), and of which kind.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.tokenizer import Properties, TokenizerMethod, Vocabulary
from harness.kinds.tokenizer.checks import measured_properties
from harness.kinds.tokenizer.intrinsics import Intrinsics
from harness.kinds.tokenizer.rewrites import TokenConsistency


@lru_cache(maxsize=1)
def by_word(tokenizer) -> Mapping[bytes, Sequence[int]]:  # type: ignore[no-untyped-def]
    """Ids by their bytes, blanks around them left out."""
    found = defaultdict(list)
    for token_id, token in enumerate(Vocabulary(tokenizer).tokens):
        if token and token.strip():
            found[token.strip()].append(token_id)
    return found


class AliasMask:
    """A logits processor for rows that go on after ``prompt_length`` ids with a word whose source ids are known."""

    def __init__(self, tokenizer, source_ids: Sequence[int], prompt_length: int) -> None:  # type: ignore[no-untyped-def]
        self.bytes_of = lambda ids: b"".join(tokenizer.token_bytes(i) or b"" for i in ids)
        self.by_word = by_word(tokenizer)
        self.source_ids = list(source_ids)
        self.word = self.bytes_of(source_ids).strip()
        self.prompt_length = prompt_length

    def forbidden(self, written: Sequence[int]) -> list[int]:
        """Ids that would complete the word in other tokens than the source's, after those written since its place."""
        done = self.bytes_of(written)
        begun = done.lstrip()
        if begun == self.word or not self.word.startswith(begun):
            return []
        # Inside the word a token with a leading blank would end it; before the word it may have any.
        rest = self.by_word.get(self.word[len(begun) :], ())
        return [
            i for i in rest if [*written, i] != self.source_ids and self.bytes_of([*written, i]).strip() == self.word
        ]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores ``[1, V]`` with minus infinity at the forbidden ids; the rest is renormalised by the softmax."""
        forbidden = self.forbidden(input_ids[0, self.prompt_length :].tolist())
        if not forbidden:
            return scores
        masked = scores.clone()
        masked[:, forbidden] = -float("inf")
        return masked


@method(
    id="mask_aliases",
    kind="tokenizer",
    title="Token consistency and alias masking (Say Anything but This)",
    paper="arXiv:2601.14658",
    guarantee="exact",
    baseline="native",
    identity={},
    details={
        "probe": "reconstruction: one sentence, output forced up to the marked word; the paper rewrites whole texts",
        "source ids": "reconstruction: those of the sentence without brackets, in the prompt",
        "sampling": "third-party notes on the paper: top-p 0.9, top-k 50, temperature 1",
        "classes": "third-party notes name the eight classes; the decision rules are a reconstruction",
        "mask": "ours: every completion of the word is tested at each step, so no list of aliases has to be capped",
        "subject": "unchanged, so tasks read as the baseline; the probe applies the mask, as it knows the copied word",
    },
)
class MaskAliases(TokenizerMethod):
    """The probe ``token_consistency`` with and without the mask, on the same prompts."""

    changes: ClassVar[frozenset[str]] = frozenset()

    sentences: int = Field(24, ge=1, description="sentences of the probe, one marked word each")
    samples: int = Field(20, ge=1, description="samples a sentence")
    temperature: float = Field(1.0, gt=0, description="of the sampling")
    top_p: float = Field(0.9, gt=0, le=1, description="of the sampling")
    top_k: int = Field(50, ge=0, description="of the sampling; 0: all tokens")

    def declared(self, tokenizer) -> Properties:  # type: ignore[no-untyped-def]
        """What is found to hold of the subject's tokenizer."""
        return measured_properties(tokenizer)

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The subject's tokenizer."""
        return tokenizer

    @contextmanager
    def apply(self, subject, artifact=None) -> Iterator:  # type: ignore[no-untyped-def,type-arg]
        """The subject as it is."""
        yield subject

    def probes(self) -> Iterable:  # type: ignore[type-arg]
        """The tokenizer's intrinsics, and token consistency without and with the mask."""
        probe = TokenConsistency(AliasMask, self.sentences, self.samples, self.temperature, self.top_p, self.top_k)
        return (Intrinsics(), probe)
