"""A tokenizer as a channel and as the first stage of a compressor.

For a stream of ids X_1, X_2, ... with k-gram counts within documents: block entropy H(X_1..X_k), conditional entropy
H_k = H(X_1..X_k) - H(X_1..X_{k-1}). By counts alone H_k falls to zero once most k-grams are unique, so each is given
with the Miller-Madow correction (H + (types - 1) / (2 N ln 2)), with the number of k-grams a type, and for the same
tokens in random order; only the gap to that is structure. Utilisation is H_1 / log2 K. As a compressor: the ids as
bytes, behind a general compressor, against the text behind the same one.
"""

from __future__ import annotations

import lzma
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.kinds.method import Measurement
from harness.kinds.tokenizer.intrinsics import DEFAULT_CORPUS, renyi_bits, shannon_bits, under
from harness.kinds.tokenizer.vocabulary import Vocabulary, utf8
from harness.subjects.subject import Subject
from harness.subjects.tokenizer import Tokenizer
from harness.toolkit.corpora import documents

ORDERS = 5
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": lambda data: zlib.compress(data, 9),
    "lzma": lambda data: lzma.compress(data, preset=9),
}
Ids = NDArray[np.int64]


def gram_counts(ids_D: Sequence[Ids], orders: int = ORDERS) -> Iterator[Ids]:
    """How often each distinct k-gram occurs within documents, for k = 1 to ``orders``."""
    flat = np.concatenate(ids_D) if len(ids_D) else np.zeros(0, np.int64)
    owner = np.repeat(np.arange(len(ids_D)), [len(ids) for ids in ids_D])
    _, token, counts = np.unique(flat, return_inverse=True, return_counts=True)
    yield counts
    gram = token
    for k in range(2, orders + 1):
        inside = owner[k - 1 :] == owner[: len(owner) - k + 1]
        pairs = gram[: len(token) - k + 1] * (int(token.max()) + 1) + token[k - 1 :]
        _, gram, _ = np.unique(pairs, return_inverse=True, return_counts=True)
        yield np.unique(pairs[inside], return_counts=True)[1]


def block_entropies(ids_D: Sequence[Ids]) -> tuple[list[float], list[float], list[float]]:
    """By order: block entropy in bits, the same corrected, and k-grams a type; orders without a k-gram are left out."""
    plain, corrected, density = [], [], []
    for counts in gram_counts(ids_D):
        if not len(counts):
            break
        total = int(counts.sum())
        plain.append(float(shannon_bits(counts.astype(float))))
        corrected.append(plain[-1] + (len(counts) - 1) / (2 * total * math.log(2)))
        density.append(total / len(counts))
    return plain, corrected, density


def conditional(blocks: Sequence[float]) -> list[float]:
    """H_k from block entropies."""
    return [float(x) for x in np.diff([0.0, *blocks])]


def shuffled(ids_D: Sequence[Ids], seed: int = 0) -> list[Ids]:
    """The tokens of all documents in random order, in documents of the same lengths."""
    mixed = np.random.default_rng(seed).permutation(np.concatenate(ids_D))
    return np.split(mixed, np.cumsum([len(ids) for ids in ids_D])[:-1])


def entropy_orders(ids_D: Sequence[Ids], num_bytes: int) -> list[Measurement]:
    """Conditional entropies of orders 1 to 5 with what they must be read beside."""
    plain, corrected, density = block_entropies(ids_D)
    tokens = sum(map(len, ids_D))
    columns = {
        "conditional_entropy_bits": conditional(plain),
        "conditional_entropy_corrected_bits": conditional(corrected),
        "conditional_entropy_shuffled_bits": conditional(block_entropies(shuffled(ids_D))[0]),
        "conditional_entropy_bits_per_byte": [h * tokens / num_bytes for h in conditional(plain)],
        "grams_per_type": density,
    }
    return [
        Measurement(metric, value, n=tokens, phase=f"k{k}")
        for metric, values in columns.items()
        for k, value in enumerate(values, 1)
    ]


def utilisation(ids_D: Sequence[Ids], vocab_size: int) -> list[Measurement]:
    """Entropies over what the channel could carry, for the nominal vocabulary and for the ids seen."""
    counts = next(gram_counts(ids_D)).astype(float)
    sizes = {"nominal": vocab_size, "seen": max(len(counts), 2)}
    figures = {"capacity_utilisation": shannon_bits(counts), "renyi2_efficiency": renyi_bits(counts, 2.0)}
    return [
        Measurement(metric, float(bits) / math.log2(size), n=int(counts.sum()), phase=phase)
        for metric, bits in figures.items()
        for phase, size in sizes.items()
    ]


def fixed_width(ids: Ids, vocab_size: int) -> bytes:
    """Ids as little-endian integers of the fewest whole bytes that hold any id."""
    width = max(1, math.ceil(math.log2(vocab_size) / 8))
    return ids.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :width].tobytes()


def varint(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first; the top bit says that more follow."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def varints(ids: Ids, ranks: Sequence[int]) -> bytes:
    """Ids as varints of their ranks, so that frequent ones are short."""
    table = [varint(rank) for rank in ranks]
    return b"".join(table[i] for i in ids.tolist())


def training_ranks(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """The rank of each id by how often it occurs in other texts, then by id."""
    counts = Counter(i for text in texts for i in tokenizer.encode(text))
    ordered = sorted(range(tokenizer.vocab_size), key=lambda i: (-counts[i], i))
    ranks = [0] * tokenizer.vocab_size
    for rank, i in enumerate(ordered):
        ranks[i] = rank
    return ranks


def pipeline(tokenizer: Tokenizer, texts: Sequence[str], train_texts: Sequence[str]) -> list[Measurement]:
    """Compressed sizes of the texts' ids and bytes, in bits per code point."""
    ids = np.array([i for text in texts for i in tokenizer.encode(text)], dtype=np.int64)
    raw, characters = utf8("".join(texts)), sum(map(len, texts))
    vocabulary = b"".join(varint(len(t or b"")) + (t or b"") for t in Vocabulary(tokenizer).tokens)
    forms = {
        "fixed": fixed_width(ids, tokenizer.vocab_size),
        "varint": varints(ids, training_ranks(tokenizer, train_texts)),
    }
    found = []
    for name, compress in COMPRESSORS.items():
        plain, extra = len(compress(raw)), len(compress(vocabulary))
        found.append(Measurement("pipeline_bits_per_character", 8 * plain / characters, phase=f"{name} bytes"))
        for form, data in forms.items():
            size, phase = len(compress(data)), f"{name} {form}"
            found += [
                Measurement("pipeline_bits_per_character", 8 * size / characters, phase=phase),
                Measurement("pipeline_bits_with_vocabulary", 8 * (size + extra) / characters, phase=phase),
                Measurement("pipeline_saving", 1 - size / plain, phase=phase),
            ]
    return found


@dataclass
class Capacity:
    """The probe ``capacity``: utilisation, entropy orders and pipeline compression on the test split of a corpus."""

    corpus: str = DEFAULT_CORPUS
    max_bytes: int = 200_000
    name: str = "capacity"

    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """Figures of the subject's tokenizer; ranks come from as much training text."""
        tokenizer, texts = subject.text_tokenizer(), documents(self.corpus, "test", self.max_bytes)
        ids_D = [np.array(tokenizer.encode(text), dtype=np.int64) for text in texts]
        found = [
            *utilisation(ids_D, tokenizer.vocab_size),
            *entropy_orders(ids_D, sum(len(utf8(text)) for text in texts)),
            *pipeline(tokenizer, texts, documents(self.corpus, "train", self.max_bytes)),
        ]
        return under(self.corpus, found)
