"""Scores of a segmentation against one that is known to be right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class BoundaryScores:
    """Of the cuts inside texts: how many are right, how many of the right ones are there; and the share of the right
    pieces that are pieces as a whole."""

    precision: float
    recall: float
    exact: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def boundary_scores(found: Iterable[Sequence[bytes | str]], gold: Iterable[Sequence[bytes | str]]) -> BoundaryScores:
    """Scores over texts, each given as its pieces; both segmentations must spell the same text. Nothing to cut: 1."""
    counts = {"cuts": 0, "right": 0, "gold": 0, "whole": 0, "pieces": 0}
    for ours, theirs in zip(found, gold, strict=True):
        ends, gold_ends = ([*accumulate(map(len, text))] for text in (ours, theirs))
        if ends[-1:] != gold_ends[-1:]:
            raise ValueError(f"the segmentations spell texts of {ends[-1:]} and {gold_ends[-1:]} units")
        inner, gold_inner = set(ends[:-1]), set(gold_ends[:-1])
        spans, gold_spans = ({*zip([0, *e], e, strict=False)} for e in (ends, gold_ends))
        counts["cuts"] += len(inner)
        counts["gold"] += len(gold_inner)
        counts["right"] += len(inner & gold_inner)
        counts["pieces"] += len(gold_spans)
        counts["whole"] += len(spans & gold_spans)

    def share(part: str, whole: str) -> float:
        return counts[part] / counts[whole] if counts[whole] else 1.0

    return BoundaryScores(share("right", "cuts"), share("right", "gold"), share("whole", "pieces"))
