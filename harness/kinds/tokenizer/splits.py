"""The split table: for each token, the pairs of tokens whose bytes joined are its bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.kinds.tokenizer.vocabulary import Vocabulary

Splits = Mapping[int, Sequence[tuple[int, int]]]


def split_table(vocabulary: Vocabulary) -> Splits:
    """Every pair ``(i, j)`` with bytes(i) + bytes(j) = bytes(token), for the tokens that have one.

    All cuts are tried, also within a character; special and single-byte tokens have none.
    """
    held = vocabulary.by_bytes
    table: dict[int, tuple[tuple[int, int], ...]] = {}
    for token_id, token in enumerate(vocabulary.tokens):
        cuts = [(token[:k], token[k:]) for k in range(1, len(token))] if token else []
        pairs = tuple((held[left], held[right]) for left, right in cuts if left in held and right in held)
        if pairs:
            table[token_id] = pairs
    return table
