"""LZ-aware BPE: of the most frequent pairs, that one is merged which makes a held-out stream smallest under DEFLATE.

At each step the ``candidates`` most frequent pairs are tried on a stream of validation text: with v' the stream after
the merge, written as 16-bit ids, L(pair) = len(deflate(v')). The pair with the least L is merged; of equals the more
frequent one. One candidate is plain BPE; all of them would be the paper's greedy choice.
"""

import zlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from harness.catalog import method
from harness.kinds.method import Workload
from harness.kinds.tokenizer import Properties
from harness.kinds.tokenizer.bpe import MergesMethod, bpe_state, pair_table, word_ids
from harness.kinds.tokenizer.merging import PairTable


class Stream:
    """The validation text as ids ``[N]``; ``first`` marks those that begin a word, across which nothing merges."""

    def __init__(self, words: Iterable[tuple[int, ...]]) -> None:
        words = list(words)
        self.ids_N = np.array([i for word in words for i in word], dtype="<u2")
        self.first_N = np.array([at == 0 for word in words for at in range(len(word))], dtype=bool)

    def merged(self, pair: tuple[int, int], made: int):  # type: ignore[no-untyped-def]
        """Ids and word starts after the pair has become ``made`` everywhere, from the left."""
        left, right = self.ids_N[:-1] == pair[0], self.ids_N[1:] == pair[1]
        places = np.flatnonzero(left & right & ~self.first_N[1:])
        if pair[0] == pair[1]:  # of a run every second place
            taken, last = [], -2
            for place in places.tolist():
                if place > last + 1:
                    taken.append(place)
                    last = place
            places = np.array(taken, dtype=np.int64)
        ids_N = self.ids_N.copy()
        ids_N[places] = made
        return np.delete(ids_N, places + 1), np.delete(self.first_N, places + 1)

    def size(self, pair: tuple[int, int], made: int, level: int) -> int:
        """Compressed bytes of the stream after a merge."""
        return len(zlib.compress(self.merged(pair, made)[0].tobytes(), level))


def choose(table: PairTable, stream: Stream, candidates: int, min_frequency: int, level: int):  # type: ignore[no-untyped-def]
    """The pair to merge next; None where no pair is frequent enough."""
    pairs = [pair for pair in table.best(candidates) if table.counts[pair] >= min_frequency]
    if len(pairs) < 2:
        return pairs[0] if pairs else None
    return min(pairs, key=lambda pair: stream.size(pair, len(table.tokens), level))


@method(
    id="lz_bpe",
    kind="tokenizer",
    title="LZ-aware BPE",
    paper="arXiv:2601.09039",
    guarantee="approximate",
    baseline="native",
    needs="a trainer run of a minute or less",
    details={
        "rule": "secondary: each merge minimises the compressed length of a validation stream",
        "candidates": "reconstruction: the 16 most frequent pairs; the paper seems to try all",
        "stream": "reconstruction: 64 KiB held out from the training text, 16-bit ids from the first merge on",
        "compressor": "DEFLATE without gzip's header, whose length is constant",
        "embeddings": "mean of the old parts' rows (arXiv:2402.09977), no training after it",
    },
)
class LzBpe(MergesMethod):
    """``vocab_size`` text tokens, chosen by what they save a compressor."""

    vocab_size: int = Field(512, ge=256, le=65536, description="text tokens, the 256 bytes included")
    candidates: int = Field(16, ge=1, description="pairs tried at each step; 1 is plain BPE")
    validation_bytes: int = Field(65536, ge=1, description="text held out for the stream")
    level: int = Field(6, ge=1, le=9, description="effort of the compressor")
    min_frequency: int = Field(2, ge=1, description="a rarer pair is not merged")
    pattern: Literal["gpt2", "digits", "cl100k", "marks"] = Field("gpt2", description="how text is cut into words")
    corpus: str = Field("python_docs", description="corpus name, or path of a text file or folder")
    train_bytes: int = Field(4_000_000, ge=1, description="text to train on, at most")
    properties = Properties(lossless=True, byte_complete=True)

    def train(self, texts, seed):  # type: ignore[no-untyped-def]
        """The tokenizer as JSON."""
        counted, held = self.divide(list(texts))
        table, stream = pair_table(counted, self.pattern), Stream(word_ids(held, self.pattern))
        merges = []
        while len(table.tokens) < self.vocab_size:
            pair = choose(table, stream, self.candidates, self.min_frequency, self.level)
            if pair is None:
                break
            merges.append((table.tokens[pair[0]], table.tokens[pair[1]]))
            stream.ids_N, stream.first_N = stream.merged(pair, table.merge(pair))
        return bpe_state(merges, self.pattern)

    def divide(self, texts: list[str]) -> tuple[list[str], list[str]]:
        """Training texts, and those of the validation stream: the last ones, at most half of all."""
        held, room = len(texts), self.validation_bytes
        while held > len(texts) / 2 and room > 0:
            held -= 1
            room -= len(texts[held].encode("utf-8", "surrogatepass"))
        return texts[:held], texts[held:]

    def train_workload(self, texts) -> Workload:  # type: ignore[no-untyped-def]
        """The kind's, over at most 300 tokens."""
        return super(LzBpe, replace(self, vocab_size=min(self.vocab_size, 300))).train_workload(texts)
