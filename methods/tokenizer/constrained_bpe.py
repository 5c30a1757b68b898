"""Constrained BPE for abugidas: a dependent vowel sign belongs to the consonant before it.

Units are code points (built from bytes by merges that come first), and a pair (a, b) may merge only if a does not begin
with a sign, so that no learnt token begins with one: a sign alone can only be taken up by what stands before it. With
``hard`` every base that the corpus shows with a sign is joined to it before anything is counted. With ``morphemes``
words are first taken apart by a table, sandhi undone, and merges stay within a morpheme.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.tokenizer import Properties, Specials
from harness.kinds.tokenizer.base import content_name
from harness.kinds.tokenizer.bpe import Merges, MergesMethod, bpe_state, pair_table
from harness.kinds.tokenizer.merging import learn_merges
from harness.kinds.tokenizer.morphemes import Morphemes, MorphemeTokenizer, load_morphemes

VOWEL_SIGNS = "\u093a\u093b\u093e-\u094c\u094e\u094f\u0955-\u0957\u0962\u0963"
EXTENDED = VOWEL_SIGNS + "\u0900-\u0903\u093c\u094d"


def begins_with(signs: str, token: bytes) -> bool:
    """Whether the token's first code point is one of the signs."""
    return re.match(f"[{signs}]", token.decode("utf-8", "replace")) is not None


def character_merges(texts: Iterable[str]) -> Merges:
    """Merges that make each code point beyond ASCII of the texts out of its bytes, from the left."""
    merges: dict[tuple[bytes, bytes], None] = {}
    for character in sorted({c for text in texts for c in text if c > "\x7f" and not "\ud800" <= c <= "\udfff"}):
        data = character.encode()
        merges |= {(data[:n], data[n : n + 1]): None for n in range(1, len(data))}
    return list(merges)


def cluster_merges(texts: Iterable[str], signs: str) -> Merges:
    """Merges that join each base of the texts to the signs behind it, one after another."""
    pattern, merges = re.compile(f"[^\\s{signs}][{signs}]+"), {}
    for cluster in sorted({found for text in texts for found in pattern.findall(text)}):
        if unicodedata.category(cluster[0])[0] == "L":
            merges |= {(cluster[:n].encode(), cluster[n].encode()): None for n in range(1, len(cluster))}
    return list(merges)


@method(
    id="constrained_bpe",
    kind="tokenizer",
    title="Constrained BPE (MorphTok)",
    paper="arXiv:2504.10335",
    guarantee="approximate",
    baseline="native",
    needs="text in Devanagari: a file, or the package of translated messages, fetched once; seconds of training",
    claims=[{"metric": "relative fertility", "value": "-1.68 %", "against": "BPE", "on": "Hindi and Marathi"}],
    details={
        "rule": "reconstruction: the abstract gives the goal; the left token may not begin with a sign",
        "units": "reconstruction: code points, made of bytes by merges that come first; unseen ones stay bytes",
        "signs": "reconstruction: dependent vowel signs of Devanagari; extended adds virama, nukta and nasal marks",
        "hard": "ours: bases and signs that the corpus shows together are joined first; they count as tokens",
        "words": "ours: a pattern with combining marks as letters, as the usual one cuts words at vowel signs",
        "morphemes": "the paper's other part, by a table of your own (JSON: word, list of morphemes); hi is a toy of a "
        "hundred Hindi words. Words that it lacks stay whole: the paper's segmenter model is not available",
        "joints": "ours: a token without bytes stands between morphemes, and decoding looks the word up; the paper's "
        "splitting loses the word",
        "EvalTok": "not built: it needs human judges",
    },
)
class ConstrainedBpe(MergesMethod):
    """BPE on code points with ``vocab_size`` text tokens and one rule for signs."""

    vocab_size: int = Field(2048, ge=256, le=262144, description="text tokens, bytes and characters included")
    signs: Literal["vowels", "extended"] = Field("vowels", description="which marks belong to what is before them")
    hard: bool = Field(False, description="whether bases are joined to their signs before anything is counted")
    min_frequency: int = Field(2, ge=1, description="a rarer pair is not merged")
    pattern: Literal["gpt2", "digits", "cl100k", "marks"] = Field("marks", description="how text is cut into words")
    morphemes: str = Field("", description="hi (toy) or path of a JSON table; empty: words are not taken apart")
    corpus: str = Field("parallel_hi", description="corpus name, or path of a text file or folder")
    train_bytes: int = Field(4_000_000, ge=1, description="text to train on, at most")

    def declared(self, tokenizer) -> Properties:  # type: ignore[no-untyped-def]
        """With morphemes, a text comes back unless two words of the table have the same ones."""
        kept = not self.morphemes or load_morphemes(self.morphemes).reversible
        return Properties(lossless=kept, byte_complete=True, normalizes=bool(self.morphemes))

    def train(self, texts, seed):  # type: ignore[no-untyped-def]
        """The tokenizer as JSON; with morphemes, their table beside it."""
        if not self.morphemes:
            return self._merged(list(texts))
        table = load_morphemes(self.morphemes)
        return {"bpe": self._merged([p for t in texts for p in table.split(t)]), "morphemes": table.analyses}

    def _merged(self, texts: list[str]) -> str:
        signs = EXTENDED if self.signs == "extended" else VOWEL_SIGNS
        first = [*character_merges(texts), *(cluster_merges(texts, signs) if self.hard else ())]
        table = pair_table(texts, self.pattern, first, lambda left, right: not begins_with(signs, left))
        return bpe_state([*first, *learn_merges(table, self.vocab_size, self.min_frequency)], self.pattern)

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The trained tokenizer with the subject's special tokens."""
        if isinstance(artifact, str):
            return super().make(tokenizer, artifact)
        base, name = super().make(tokenizer, artifact["bpe"]), content_name(self.card.id, artifact)
        return MorphemeTokenizer(base, Morphemes(artifact["morphemes"]), Specials.of(tokenizer), name)
