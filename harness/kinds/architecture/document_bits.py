"""Bits that a subject needs for whole documents, comparable between tokenizers: windows are cut in bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.subjects.requests import ScoreRequest
from harness.subjects.subject import Subject
from harness.subjects.tokenizer import Tokenizer


def document_requests(tokenizer: Tokenizer, text: str, window: int) -> list[ScoreRequest]:
    """Requests that score each token of a text once, after at most the ``window / 2`` bytes before its half window.

    The tokenizer's prefix id begins the text and is not scored. Every subject sees the same bytes, up to the tokens
    that cross an edge, which belong to the half window in which they begin.
    """
    half, at = max(1, window // 2), 0
    starts, ids = [], tokenizer.encode(text)
    for token in ids:
        starts.append(at)
        at += len(tokenizer.token_bytes(token) or b"")
    found, first = [], 0
    while first < len(ids):
        begin = starts[first] // half * half
        last = next((i for i in range(first, len(ids)) if starts[i] >= begin + half), len(ids))
        context = tuple(t for t, s in zip(ids[:first], starts[:first], strict=True) if s >= begin - half)
        prefix = () if context and begin > half else (tokenizer.prefix_id,)
        found.append(ScoreRequest(context=prefix + context, continuation=tuple(ids[first:last])))
        first = last
    return found


def document_bits(subject: Subject, texts: Sequence[str], window: int, batch_size: int = 8) -> list[float]:
    """Bits of each document, all its tokens counted: -log2 p of one segmentation, an upper bound of the text's own."""
    requests = [document_requests(subject.text_tokenizer(), text, window) for text in texts]
    scores = iter(subject.score([r for one in requests for r in one], batch_size))
    return [-sum(next(scores).logprob for _ in one) / math.log(2) for one in requests]
