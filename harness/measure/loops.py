"""Texts that end in a loop: they flatter every drafter, and a cache that lost too much falls into them."""

from __future__ import annotations

from collections.abc import Sequence

REPEATS = 3
LEAST_TOKENS = 16


def ends_in_loop(tokens: Sequence[int], repeats: int = REPEATS, least_tokens: int = LEAST_TOKENS) -> bool:
    """Whether a text has fallen into a loop and has not left it.

    It has where its last ``n`` tokens repeat one block of ``p`` tokens, for some ``p`` and ``n`` with
    ``n >= repeats * p`` and ``n >= least_tokens``; the last repeat may be cut short.
    """
    return any(
        _periodic_tail(tokens, period) >= max(repeats * period, least_tokens)
        for period in range(1, len(tokens) // repeats + 1)
    )


def _periodic_tail(tokens: Sequence[int], period: int) -> int:
    """Length of the longest tail in which each token equals the one ``period`` places before, its first block included.

    At least ``period``: a block that is not repeated.
    """
    start = len(tokens) - period
    while start > 0 and tokens[start - 1] == tokens[start - 1 + period]:
        start -= 1
    return len(tokens) - start
