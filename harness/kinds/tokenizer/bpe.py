"""Byte-level BPE by the Rust library, and the same training written plainly as its reference."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

from tokenizers import Regex
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.trainers import BpeTrainer

from harness.errors import UsageError, unknown_name
from harness.kinds.tokenizer.vocabulary import Specials, TableTokenizer
from harness.subjects.tokenizer import printable_to_byte

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PATTERNS: dict[str, str] = {
    "gpt2": _GPT2,
    "digits": _GPT2.replace(r" ?\p{N}+", r"\p{N}"),
    "cl100k": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "none": "",
}
"""Regular expressions that cut text into the words merges stay within; ``digits`` is gpt2 with single digits."""


def _untrained(pattern: str) -> RustTokenizer:
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
    tokenizer = _untrained(pattern)
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        # Without it a byte that the corpus lacks could never be encoded.
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


def bpe_tokenizer(state: str, specials: Specials, name: str) -> TableTokenizer:
    """The trained tokenizer behind the zoo's interface, with special ids after its own."""
    rust = RustTokenizer.from_str(state)
    table = printable_to_byte()
    ordered = sorted(rust.get_vocab().items(), key=lambda item: item[1])
    if [i for _, i in ordered] != list(range(len(ordered))):
        raise UsageError(f"{name}: the tokenizer's ids have gaps; train it again")
    return TableTokenizer(
        name,
        [bytes(table[c] for c in token) for token, _ in ordered],
        lambda text: list(rust.encode(text, add_special_tokens=False).ids),
        specials,
        rust.model._clear_cache,
    )


def merges_of(state: str) -> list[tuple[bytes, bytes]]:
    """The merges of a trained tokenizer, in order."""
    table = printable_to_byte()
    pairs = json.loads(state)["model"]["merges"]
    return [(bytes(table[c] for c in left), bytes(table[c] for c in right)) for left, right in pairs]


def word_counts(texts: Iterable[str], pattern: str = "gpt2") -> Counter[str]:
    """Words of the texts in the printable byte alphabet, as the pre-tokenizer cuts them."""
    cutter = _untrained(pattern).pre_tokenizer
    return Counter(word for text in texts for word, _ in cutter.pre_tokenize_str(text))


def learn_merges(words: Mapping[str, int], num_merges: int, min_frequency: int = 2) -> list[tuple[bytes, bytes]]:
    """Plain BPE training: merge the most frequent adjacent pair, of equals the one with the smaller ids; repeat."""
    table = printable_to_byte()
    alphabet = {character: i for i, character in enumerate(sorted(table))}
    tokens = [bytes([table[c]]) for c in sorted(table)]
    ids = {token: i for i, token in enumerate(tokens)}
    pieces = [[alphabet[c] for c in word] for word in words]
    weight = list(words.values())
    counts: Counter[tuple[int, int]] = Counter()
    where: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for index, piece in enumerate(pieces):
        for pair in pairwise(piece):
            counts[pair] += weight[index]
            where[pair].add(index)
    merges: list[tuple[bytes, bytes]] = []
    while counts and len(merges) < num_merges:
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < max(min_frequency, 1):
            break
        left, right = tokens[best[0]], tokens[best[1]]
        merges.append((left, right))
        if left + right not in ids:
            ids[left + right] = len(tokens)
            tokens.append(left + right)
        for index in where.pop(best):
            piece = pieces[index]
            for pair in pairwise(piece):
                counts[pair] -= weight[index]
            pieces[index] = piece = _merged(piece, best, ids[left + right])
            for pair in pairwise(piece):
                counts[pair] += weight[index]
                where[pair].add(index)
        del counts[best]
    return merges


def _merged(piece: list[int], pair: tuple[int, int], made: int) -> list[int]:
    """The word with every occurrence of the pair, from the left, replaced by one id."""
    out: list[int] = []
    position = 0
    while position < len(piece):
        if tuple(piece[position : position + 2]) == pair:
            out.append(made)
            position += 2
        else:
            out.append(piece[position])
            position += 1
    return out
