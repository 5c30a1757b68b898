"""What changes while a training goes on: pure functions of its progress, so that one taken up again goes on alike."""

from __future__ import annotations

import math
from typing import Literal

Curve = Literal["linear", "power", "sigmoid", "constant"]


def schedule(
    curve: Curve,
    start: float,
    end: float,
    progress: float,
    begin: float = 0.0,
    finish: float = 1.0,
    power: float = 2.0,
    steepness: float = 8.0,
) -> float:
    """A value that goes from ``start`` to ``end`` while ``progress`` goes from ``begin`` to ``finish``.

    The part that is left of the way is ``1 - q`` (linear), ``(1 - q)^power``, a logistic curve of this steepness that
    is scaled to end at 1 and 0, or 1 (constant).
    """
    q = min(max((progress - begin) / (finish - begin), 0.0), 1.0)
    if curve == "constant":
        return start
    if curve == "sigmoid":
        low, high = (1 / (1 + math.exp(-sign * steepness / 2)) for sign in (-1, 1))
        left = (1 / (1 + math.exp(steepness * (q - 0.5))) - low) / (high - low)
    else:
        left = (1 - q) ** (power if curve == "power" else 1.0)
    return end + (start - end) * left
