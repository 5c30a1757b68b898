"""Byte-level BPE on the Rust library: patterns, training, and merges learnt elsewhere put behind it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from tokenizers import Regex
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.trainers import BpeTrainer

from harness.errors import UsageError, unknown_name
from harness.kinds.method import Artifact
from harness.kinds.tokenizer.base import TokenizerMethod, content_name
from harness.kinds.tokenizer.merging import MayMerge, PairTable
from harness.kinds.tokenizer.vocabulary import Specials, TableTokenizer
from harness.subjects.tokenizer import Tokenizer, printable_to_byte

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PATTERNS: dict[str, str] = {
    "gpt2": _GPT2,
    "digits": _GPT2.replace(r" ?\p{N}+", r"\p{N}"),
    "cl100k": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "none": "",
    "marks": _GPT2.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]"),
    "lines": r"\n+|[^\n]{1,512}",
    "lines_digits": r"\n+|\p{N}|[^\n\p{N}]{1,512}",
    "superbpe": r"\n+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]{2,}| +(?!\S)",
}
"""Regular expressions that cut text into the words merges stay within. ``digits`` is gpt2 with single digits, ``marks``
gpt2 with combining marks as letters, ``lines`` cuts at line ends alone (and after 512 characters), ``superbpe`` keeps
to itself what its second stage must not join: line ends, up to three digits, runs of punctuation, extra spaces."""


def byte_alphabet() -> list[str]:
    """The printable characters of the 256 bytes in the order of their ids."""
    return sorted(printable_to_byte())


def printable(token: bytes) -> str:
    """The token in printable characters, one a byte."""
    table = {byte: character for character, byte in printable_to_byte().items()}
    return "".join(table[b] for b in token)


def untrained(pattern: str) -> RustTokenizer:
    """A tokenizer without a model that cuts text into words by a named pattern and writes them as printable bytes."""
    if pattern not in PATTERNS:
        raise unknown_name("pre-tokenizer", pattern, PATTERNS)
    tokenizer = RustTokenizer(BPE())
    bytes_only = ByteLevel(add_prefix_space=False, use_regex=False)
    words = [Split(Regex(PATTERNS[pattern]), "isolated")] if PATTERNS[pattern] else []
    tokenizer.pre_tokenizer = PreTokenizers([*words, bytes_only])
    return tokenizer


def train_bpe(texts: Iterable[str], vocab_size: int, min_frequency: int = 2, pattern: str = "gpt2") -> str:
    """Train on texts and return the tokenizer as JSON; the same texts in the same order give the same JSON.

    ``vocab_size`` counts the 256 bytes and the merges; it is not reached where no pair is frequent enough.
    """
    tokenizer = untrained(pattern)
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        # Without it a byte that the corpus lacks could never be encoded.
        initial_alphabet=byte_alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


Merges = Sequence[tuple[bytes, bytes]]
"""Pairs of tokens that become one, the first to merge first."""


def tokens_of(merges: Merges) -> list[bytes]:
    """The bytes of the ids: the 256 bytes in the order of their printable characters, then what the merges make."""
    table = printable_to_byte()
    return list(
        dict.fromkeys([*(bytes([table[c]]) for c in byte_alphabet()), *(left + right for left, right in merges)])
    )


def bpe_state(merges: Merges, pattern: str = "gpt2") -> str:
    """A tokenizer with these merges as JSON, as :func:`train_bpe` gives it."""
    rust = untrained(pattern)
    vocabulary = {printable(token): i for i, token in enumerate(tokens_of(merges))}
    rust.model = BPE(vocabulary, [(printable(left), printable(right)) for left, right in merges])
    return str(rust.to_str())


class ByteLevelTokenizer(TableTokenizer):
    """A tokenizer of the Rust library over the byte alphabet, with special ids after its own.

    ``continuing`` is the mark of tokens that do not begin a word; it stands for no bytes.
    """

    def __init__(self, rust: RustTokenizer, specials: Specials, name: str, continuing: str = "") -> None:
        table = printable_to_byte()
        ordered = sorted(rust.get_vocab().items(), key=lambda item: item[1])
        if [i for _, i in ordered] != list(range(len(ordered))):
            raise UsageError(f"{name}: the tokenizer's ids have gaps; train it again")
        super().__init__(
            name,
            [bytes(table[c] for c in token.removeprefix(continuing)) for token, _ in ordered],
            # Without offsets, which nobody reads: a tenth of the time.
            lambda text: list(rust.encode_batch_fast([text], add_special_tokens=False)[0].ids),
            specials,
            getattr(rust.model, "_clear_cache", None),
        )
        self.rust = rust

    def words(self, text: str) -> list[str]:
        """The words that the text is cut into before it is tokenized, in the printable byte alphabet."""
        return [word for word, _ in self.rust.pre_tokenizer.pre_tokenize_str(text)]


def merges_of(state: str) -> list[tuple[bytes, bytes]]:
    """The merges of a trained tokenizer, in order."""
    table = printable_to_byte()
    pairs = json.loads(state)["model"]["merges"]
    return [(bytes(table[c] for c in left), bytes(table[c] for c in right)) for left, right in pairs]


def word_counts(texts: Iterable[str], pattern: str = "gpt2") -> Counter[str]:
    """Words of the texts in the printable byte alphabet, as the pre-tokenizer cuts them."""
    cutter = untrained(pattern).pre_tokenizer
    return Counter(word for text in texts for word, _ in cutter.pre_tokenize_str(text))


def word_ids(texts: Iterable[str], pattern: str = "gpt2", first: Merges = ()) -> Iterator[tuple[int, ...]]:
    """Ids of each word of the texts, in order, over the bytes and the merges ``first``."""
    rust = RustTokenizer.from_str(bpe_state(first, pattern))
    known: dict[str, tuple[int, ...]] = {}
    for text in texts:
        for word, _ in rust.pre_tokenizer.pre_tokenize_str(text):
            if word not in known:
                known[word] = tuple(piece.id for piece in rust.model.tokenize(word))
            yield known[word]


def pair_table(
    texts: Iterable[str], pattern: str = "gpt2", first: Merges = (), may_merge: MayMerge | None = None
) -> PairTable:
    """The words of the texts for the Python trainer, with the merges of ``first`` applied before counting."""
    return PairTable(tokens_of(first), Counter(word_ids(texts, pattern, first)), may_merge)


class MergesMethod(TokenizerMethod):
    """A method that trains merges of bytes: its artifact is what :func:`bpe_state` and :func:`train_bpe` return."""

    trains: ClassVar[bool] = True

    def make(self, tokenizer: Tokenizer, artifact: Artifact) -> Tokenizer:
        """The trained tokenizer, on the Rust library, with the subject's special tokens."""
        rust = RustTokenizer.from_str(artifact)
        return ByteLevelTokenizer(rust, Specials.of(tokenizer), content_name(self.card.id, artifact))
