"""Figures of decoders that draft: what was accepted where, the bound of the speed-up, and where the time went."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from harness.kinds.method import Measurement
from harness.subjects.requests import Generation

DEEPEST = 8
"""Places in a draft whose acceptance is reported."""


def drafting(rows: Sequence[Generation], visits: Sequence[Sequence[Generation]]) -> list[Measurement]:
    """Counts from each prompt's first continuation; bound and shares of time from the timed visits, as the speed-up is.

    No figures where nothing drafts.
    """
    if not any("width_cost" in row.counts for row in rows):
        return []
    steps = [taken for row in rows for taken in row.steps[1:]]
    found = {
        "plain_step_share": sum(row.counts["plain_steps"] for row in rows) / len(steps),
        "drafted_tokens_per_step": sum(row.counts["drafted_tokens"] for row in rows) / len(steps),
    }
    figures = [Measurement(name, value, n=len(rows), source="count") for name, value in found.items()]
    timed = [row for visit in visits for row in visit]
    return [*figures, *accepted_by_place(steps), _bound(timed), *_time_shares(timed)]


def _bound(rows: Sequence[Generation]) -> Measurement:
    """Geometric mean over the timed requests of tokens after the first for the cost of the widths that were used."""
    logs = [math.log((len(row.tokens) - 1) / row.counts["width_cost"]) for row in rows]
    return Measurement("speedup_bound", math.exp(sum(logs) / len(logs)), n=len(logs), source="count")


def accepted_by_place(steps: Sequence[int]) -> list[Measurement]:
    """Share of decode steps that accepted the first drafted token, the first two, and so on; the phase is how many."""
    shares = [sum(taken > place for taken in steps) / len(steps) for place in range(1, DEEPEST + 1)]
    reached = itertools.takewhile(lambda share: share > 0, shares)
    return [
        Measurement("accepted_share", share, phase=str(place), n=len(steps), source="count")
        for place, share in enumerate(reached, 1)
    ]


def _time_shares(rows: Sequence[Generation]) -> list[Measurement]:
    """Parts of the time after the first token: drafting, draft forwards included, and all that is no forward."""
    total = sum(row.stamps_s[-1] - row.stamps_s[0] for row in rows)
    forwards = sum(row.seconds["forward"] + row.seconds["draft_forward"] for row in rows)
    shares = {
        "draft_time_share": sum(row.seconds["draft"] for row in rows) / total,
        "host_time_share": max(0.0, 1 - forwards / total),
    }
    return [Measurement(name, value, n=len(rows), source="clock") for name, value in shares.items()]


def divergence(ours: Sequence[Generation], theirs: Sequence[Generation]) -> list[Measurement]:
    """Share of texts that equal the baseline's, and the mean length of what they have in common.

    In bfloat16 the width of a forward changes rounding, so greedy texts part where two tokens are nearly even.
    """
    common = [
        sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a.tokens, b.tokens, strict=False)))
        for a, b in zip(ours, theirs, strict=True)
    ]
    same = sum(length == len(row.tokens) for length, row in zip(common, ours, strict=True)) / len(ours)
    found = {"same_text_share": same, "common_prefix_tokens": sum(common) / len(common)}
    return [Measurement(name, value, n=len(ours), source="count") for name, value in found.items()]
