"""Error rates and widths of five one-sided bounds on the same simulated blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ci.bench.noise_models import BLOCK_VISITS, Array, Pairs, Shape, Stream
from harness.stats.paired import critical_rank

BLOCKS = (12, 30, 100, 300)
LEVELS = (0.05, 0.0005)
DRAWS = 9999
CHUNK = 1000
Ends = tuple[Array, Array]
"""Lower and upper bound of R series."""
Family = Callable[[Array, np.random.Generator], dict[str, list[Ends]]]
"""Bounds of (R, B) log ratios by method, one pair of ends for each level."""


def student(ratio_RB: Array, _: np.random.Generator) -> dict[str, list[Ends]]:
    """Mean and Student's t."""
    n = ratio_RB.shape[1]
    mean_R, error_R = ratio_RB.mean(axis=1), stats.sem(ratio_RB, axis=1)
    halves = [stats.t.isf(level, n - 1) * error_R for level in LEVELS]
    return {"Student t": [(mean_R - half_R, mean_R + half_R) for half_R in halves]}


def sign_flip(ratio_RB: Array, rng: np.random.Generator) -> dict[str, list[Ends]]:
    """The sign-flip test of the mean, inverted: order statistics of the means of subsets of the blocks.

    Flipping the signs of a subset makes the sum larger exactly where the subset's mean lies below the value tested.
    All subsets are taken where they are few, else random ones.
    """
    n = ratio_RB.shape[1]
    if 2**n <= DRAWS:
        chosen_BD = (np.arange(1, 2**n) >> np.arange(n)[:, None] & 1).astype(np.float32)
    else:
        chosen_BD = (rng.random((n, DRAWS)) < 0.5).astype(np.float32)
    size_D = chosen_BD.sum(axis=0)
    draws = len(size_D)
    means_RD = (ratio_RB.astype(np.float32) @ chosen_BD) / np.maximum(size_D, 1)
    ranks = [int(level * (draws + 1)) for level in LEVELS]
    means_RD[:, size_D == 0] = -np.inf  # no flip at all always counts against the bound
    lows = np.partition(means_RD, [k - 1 for k in ranks], axis=1)
    means_RD[:, size_D == 0] = np.inf
    highs = np.partition(means_RD, [draws - k for k in ranks], axis=1)
    return {"sign-flip": [(lows[:, k - 1].astype(float), highs[:, draws - k].astype(float)) for k in ranks]}


def signed_rank(ratio_RB: Array, _: np.random.Generator) -> dict[str, list[Ends]]:
    """Order statistics of the Walsh averages, as ``harness.stats.paired.signed_rank_bounds`` takes them."""
    rows, columns = np.triu_indices(ratio_RB.shape[1])
    ranks = [critical_rank(ratio_RB.shape[1], level) for level in LEVELS]
    places = [place for k in ranks if k for place in (k - 1, len(rows) - k)]
    found: list[list[Ends]] = [[] for _ in LEVELS]
    for part_RB in np.array_split(ratio_RB, max(1, ratio_RB.shape[0] * len(rows) // 2_000_000)):
        walsh = np.partition((part_RB[:, rows] + part_RB[:, columns]) / 2, places, axis=1)
        none_R = np.full(len(part_RB), np.inf)
        for ends, k in zip(found, ranks, strict=True):
            ends.append((walsh[:, k - 1], walsh[:, -k]) if k else (-none_R, none_R))
    return {"signed-rank": [joined(ends) for ends in found]}


def bootstrap(ratio_RB: Array, rng: np.random.Generator) -> dict[str, list[Ends]]:
    """Quantiles of resampled means: as they are, and corrected for bias and acceleration (BCa).

    A resample is a row of multinomial weights, the same for all series of the chunk, so that one matrix product makes
    all means; the acceleration of a mean is a sixth of the sample's skewness. The tests hold both against scipy's.
    """
    n = ratio_RB.shape[1]
    weights_DB = rng.multinomial(n, np.full(n, 1 / n), DRAWS).astype(np.float32) / np.float32(n)
    mean_R = ratio_RB.mean(axis=1, keepdims=True)
    means_RD = np.sort((ratio_RB - mean_R).astype(np.float32) @ weights_DB.T, axis=1)
    bias_R = stats.norm.ppf((means_RD < 0).mean(axis=1))
    return {
        "bootstrap percentile": [_quantiles(means_RD, mean_R, 0.0, 0.0, level) for level in LEVELS],
        "bootstrap BCa": [_quantiles(means_RD, mean_R, bias_R, _acceleration(ratio_RB), level) for level in LEVELS],
    }


def _acceleration(ratio_RB: Array) -> Array:
    off_RB = ratio_RB - ratio_RB.mean(axis=1, keepdims=True)
    return np.asarray((off_RB**3).sum(axis=1) / (6 * (off_RB**2).sum(axis=1) ** 1.5))


def _quantiles(
    means_RD: NDArray[np.float32], mean_R: Array, bias_R: Array | float, pull_R: Array | float, level: float
) -> Ends:
    ends = []
    for z in (stats.norm.ppf(level), stats.norm.isf(level)):
        share_R = stats.norm.cdf(bias_R + (bias_R + z) / (1 - pull_R * (bias_R + z)))
        place_R = np.clip(np.round(share_R * (DRAWS + 1)).astype(int) - 1, 0, DRAWS - 1)
        place_R = np.broadcast_to(place_R, len(means_RD))
        ends.append(mean_R[:, 0] + means_RD[np.arange(len(means_RD)), place_R])
    return ends[0], ends[1]


FAMILIES: tuple[Family, ...] = (student, sign_flip, signed_rank, bootstrap)


def joined(parts: list[Ends]) -> Ends:
    """Ends of chunks of series as one."""
    low, high = zip(*parts, strict=True)
    return np.concatenate(low), np.concatenate(high)


def bound_rates(shape: Shape, replicates: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """For each number of blocks, level and method: how often a bound excludes the truth, and the mean half width.

    Both bounds of a series are looked at, and the rate given is that of one side: half of those that err on either.
    """
    noise = Stream(shape, replicates, max(BLOCKS) * BLOCK_VISITS, 0.0, rng)
    ratio_RB = Pairs(noise, np.arange(replicates), np.zeros(replicates)).more(max(BLOCKS))
    for n in BLOCKS:
        found: dict[tuple[float, str], list[Ends]] = defaultdict(list)
        for start in range(0, replicates, CHUNK):
            for family in FAMILIES:
                for name, ends in family(ratio_RB[start : start + CHUNK, :n], rng).items():
                    for level, pair in zip(LEVELS, ends, strict=True):
                        found[level, name].append(pair)
        for (level, name), parts in found.items():
            low_R, high_R = joined(parts)
            errors = int(((low_R > 0) | (high_R < 0)).sum())
            interval = stats.binomtest(errors, replicates).proportion_ci(0.95)
            yield {
                "shape": shape.name,
                "blocks": n,
                "level": level,
                "method": name,
                "errors_either_side": errors,
                "series": replicates,
                "rate": errors / replicates / 2,
                "rate_low": interval.low / 2,
                "rate_high": interval.high / 2,
                "half_width": float(np.mean(high_R - low_R) / 2),
            }
