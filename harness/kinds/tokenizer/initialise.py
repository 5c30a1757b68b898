"""First rows for tokens that the old vocabulary lacks, by name: ``fvt``, ``mean``, ``random`` and ``focus``.

An initialiser sees one matrix with all that a token has: its input row and, where they are not tied, its output row
and bias beside it. So both are mixed by the same weights. Rows that hold nothing of the token itself count as fallback.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.kinds.tokenizer.spaces import SPACES, readable
from harness.kinds.tokenizer.vocabulary import Vocabulary


@dataclass(frozen=True)
class Missing:
    """The new tokens without a row: their bytes (None for specials) and the old ids that each decomposes into.

    ``shared`` holds the old ids of text tokens that the new vocabulary has too; ``model`` is the old one.
    """

    model: Any
    old: Vocabulary
    tokens: Sequence[bytes | None]
    parts: Sequence[Sequence[int]]
    shared: Sequence[int]


class Made(NamedTuple):
    """Rows ``[N, D]`` of the missing tokens, and how many of them say nothing of their token."""

    rows_ND: Tensor
    fallback: int


Initialiser = Callable[[Missing, Tensor], Made]
"""From the missing tokens and the old rows ``[V, D]``, in float32 or wider, to the new rows."""


def mix_rows(rows_VD: Tensor, ids: Sequence[Sequence[int]], weights: Sequence[Sequence[float]] | None = None) -> Tensor:
    """Weighted sums of the named rows, their means without weights, ``[len(ids), D]``; no ids give the mean row."""
    device = rows_VD.device
    flat = torch.tensor([i for part in ids for i in part], dtype=torch.long, device=device)
    lengths = torch.tensor([len(part) for part in ids], dtype=torch.long, device=device)
    starts = lengths.cumsum(0) - lengths
    if weights is None:
        mixed = F.embedding_bag(flat, rows_VD, starts, mode="mean")
    else:
        flat_weights = torch.tensor([w for part in weights for w in part], dtype=rows_VD.dtype, device=device)
        mixed = F.embedding_bag(flat, rows_VD, starts, mode="sum", per_sample_weights=flat_weights)
    mixed[lengths == 0] = rows_VD.mean(0)
    return mixed


def normal_rows(rows_VD: Tensor, count: int, seed: int = 0) -> Tensor:
    """Rows drawn from a normal law with the mean and deviation of each dimension, ``[count, D]``."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, rows_VD.shape[1], generator=generator).to(rows_VD)
    return rows_VD.mean(0) + noise * rows_VD.std(0, correction=0)


def fvt(missing: Missing, rows_VD: Tensor) -> Made:
    """The mean of the old parts' rows ("fast vocabulary transfer", arXiv:2402.09977)."""
    return Made(mix_rows(rows_VD, missing.parts), sum(not part for part in missing.parts))


def mean(missing: Missing, rows_VD: Tensor) -> Made:
    """The mean row for all."""
    return Made(rows_VD.mean(0).expand(len(missing.tokens), -1).clone(), len(missing.tokens))


def random(missing: Missing, rows_VD: Tensor) -> Made:
    """Normal noise around the mean row."""
    return Made(normal_rows(rows_VD, len(missing.tokens)), len(missing.tokens))


def sparsemax(scores_NM: Tensor) -> Tensor:
    """The point of the simplex nearest to each row of scores (arXiv:1602.02068): softmax with exact zeros."""
    ordered, _ = scores_NM.sort(-1, descending=True)
    above = ordered.cumsum(-1) - 1
    rank = torch.arange(1, scores_NM.shape[-1] + 1, device=scores_NM.device)
    support = (ordered * rank > above).sum(-1, keepdim=True)
    return (scores_NM - above.gather(-1, support - 1) / support).clamp(min=0)


def focus(missing: Missing, rows_VD: Tensor) -> Made:
    """Sparsemax over similarities to the shared tokens (FOCUS, arXiv:2305.14481), spelled in ``chargram``.

    The paper's space is fastText on the new language; what has no vector gets normal noise there, ``fvt`` here.
    """
    shared = [(text, i) for i in missing.shared if (text := readable(missing.old.tokens[i]))]
    wanted = [(text, n) for n, token in enumerate(missing.tokens) if (text := readable(token))]
    made = fvt(missing, rows_VD)
    if not shared or not wanted:
        return made
    texts = sorted({text for text, _ in [*shared, *wanted]})
    place = {text: n for n, text in enumerate(texts)}
    vectors = SPACES["chargram"](texts, missing.model, missing.old).to(rows_VD.device)
    keys = vectors[[place[text] for text, _ in shared]]
    queries = vectors[[place[text] for text, _ in wanted]]
    known = rows_VD[[i for _, i in shared]]
    mixed = [sparsemax(part @ keys.T).to(known.dtype) @ known for part in queries.split(512)]
    made.rows_ND[[n for _, n in wanted]] = torch.cat(mixed)
    return Made(made.rows_ND, sum(not p for n, p in enumerate(missing.parts) if not readable(missing.tokens[n])))


INITIALISERS: dict[str, Initialiser] = {"fvt": fvt, "mean": mean, "random": random, "focus": focus}
