"""Phantom edits: the same word in other tokens (arXiv:2601.14658), told apart from words that stay or are replaced.

A span is the tokens, as bytes, of a run of blanks and the word after it. Of a source span and an output span:
``unchanged``: the same word in the same tokens; ``replaced``: another word; ``phantom``: the same word in other tokens;
``unaligned``: the output has no clean word there. A phantom edit has the first of :data:`CLASSES` that fits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

Span = Sequence[bytes]
OUTCOMES = ("unchanged", "replaced", "phantom", "unaligned")
CLASSES = (
    "whitespace_kind",
    "whitespace_detached",
    "whitespace_shift",
    "acronym_split",
    "tail_split",
    "morpheme_boundary",
    "proper_noun",
    "intra_word",
)
"""Blanks of another kind; blanks that are a token of their own or more than one on one side; words that differ by a
leading blank alone; capitals; a plural or possessive tail; a cut at an affix; a name; all else inside the word."""
TAILS = (b"s", b"'s", b"es")
PREFIXES = frozenset(
    b"anti auto bi co counter de dis down en ex fore hyper il im in inter ir mid mis multi non out over post pre pro "
    b"re semi sub super tele trans un under up".split()
)
SUFFIXES = frozenset(
    b"able al ance ed ence er ery est ful hood ible ic ing ion ish ism ist ity ive ize less ly ment ness or ous ship "
    b"sion tion ty ward wise y".split()
)
SHORTEST_STEM = 3


def word_of(span: Span) -> bytes:
    """The word without its blanks."""
    return b"".join(span).strip()


def blanks_of(span: Span) -> bytes:
    """The blanks before the word."""
    joined = b"".join(span)
    return joined[: len(joined) - len(joined.lstrip())]


def cuts_of(span: Span) -> frozenset[int]:
    """Places inside the word where a token ends."""
    lead, size = len(blanks_of(span)), len(word_of(span))
    return frozenset(end - lead for end in accumulate(map(len, span)) if 0 < end - lead < size)


def first_word(tokens: Span) -> Span | None:
    """The tokens up to the end of the first word; None where they hold no whole word of letters and nothing else.

    A word is whole where a further token shows that it has ended.
    """
    for end in range(1, len(tokens)):
        span = tokens[:end]
        if re.fullmatch(rb"\s*[A-Za-z]+", b"".join(span)) and not re.match(rb"[A-Za-z]", tokens[end]):
            return span
    return None


def outcome(source_ids: Sequence[int], output_ids: Sequence[int], source: Span, output: Span | None) -> str:
    """One of :data:`OUTCOMES`, for the ids of both spans and their bytes."""
    if output is None:
        return "unaligned"
    if word_of(source) != word_of(output):
        return "replaced"
    return "unchanged" if list(source_ids) == list(output_ids) else "phantom"


def artefact(source: Span, output: Span) -> str:
    """The class of a phantom edit; the rules are tried in the order of :data:`CLASSES`."""
    word, one, other = word_of(source), blanks_of(source), blanks_of(output)
    if one and other and set(one) != set(other):
        return "whitespace_kind"
    if _has_blank_token(source) != _has_blank_token(output) or (one and other and one != other):
        return "whitespace_detached"
    old, new = cuts_of(source), cuts_of(output)
    if one != other and old == new:
        return "whitespace_shift"
    if len(word) >= 2 and word.isupper():
        return "acronym_split"
    if any(word.endswith(tail) and old ^ new == {len(word) - len(tail)} for tail in TAILS):
        return "tail_split"
    if any(_is_morpheme(word, cut) for cut in new - old):
        return "morpheme_boundary"
    return "proper_noun" if word[:1].isupper() else "intra_word"


def _has_blank_token(span: Span) -> bool:
    return any(token and not token.strip() for token in span)


def _is_morpheme(word: bytes, cut: int) -> bool:
    """Whether a cut parts a word into a known affix and a stem."""
    before, after = word[:cut].lower(), word[cut:].lower()
    prefixed = before in PREFIXES and len(after) >= SHORTEST_STEM
    return prefixed or (after in SUFFIXES and len(before) >= SHORTEST_STEM)
