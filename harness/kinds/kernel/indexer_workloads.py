"""Workloads of indexers: the tokens that a decode step's queries choose over a long cache, against the flat indexer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from harness.kinds.kernel.indexer import Indexing, block_means
from harness.kinds.kernel.roofline import ridge_figures
from harness.kinds.method import Workload
from harness.subjects.subject import Subject

Choose = Callable[[Indexing, Tensor, Tensor], Tensor]
"""Queries, keys ``[S, N, D]`` and means of their blocks ``[S, C, D]`` to ids ``[S, M, K]``, -1 where there is none."""

STEP = 0.05
"""How far a key lies from the one before it, in keys' own lengths: neighbours in text are alike."""


def coherent_keys(keys: int, width: int, seed: int, step: float = STEP) -> Tensor:
    """Keys ``[1, N, D]`` of unit variance that drift slowly: k_s = sqrt(1 - step^2) k_(s-1) + step noise."""
    generator = torch.Generator().manual_seed(seed)
    decay = (1 - step**2) ** 0.5
    # Scaled sums of a chunk at a time: decay**-n of a whole cache would overflow.
    last, parts = torch.randn(width, generator=generator), []
    for noise in (step * torch.randn(keys, width, generator=generator)).split(256):
        power = decay ** torch.arange(1, len(noise) + 1)[:, None]
        parts.append(power * (last + (noise / power).cumsum(0)))
        last = parts[-1][-1]
    return torch.cat(parts)[None]


def indexer_inputs(
    subject: Subject, size: Mapping[str, int], shuffled: bool = False
) -> tuple[Indexing, Tensor, Tensor]:
    """Queries of a cache's last tokens, its keys and their means; neighbours of ``shuffled`` keys are not alike."""
    keys, queries, heads, width = (size[name] for name in ("keys", "queries", "heads", "width"))
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(1, queries, heads, width, generator=generator) * width**-0.5
    gate = torch.rand(1, queries, heads, generator=generator) * heads**-0.5
    key = coherent_keys(keys, width, 2)
    if shuffled:
        key = key[:, torch.randperm(keys, generator=generator)]
    stop = torch.arange(keys - queries + 1, keys + 1)[None]
    place = [x.to(subject.device, subject.dtype) for x in (query, gate, key)]
    start, stop = torch.zeros_like(stop).to(subject.device), stop.to(subject.device)
    return Indexing(place[0], place[1], start, stop), place[2], block_means(place[2], size["block"])


def intersection_over_union(ours_SMK: Tensor, theirs_SMK: Tensor) -> float:
    """Mean over queries of the common ids over all ids; -1 is no id."""
    shares = []
    for ours, theirs in zip(ours_SMK.flatten(0, 1).tolist(), theirs_SMK.flatten(0, 1).tolist(), strict=True):
        left, right = set(ours) - {-1}, set(theirs) - {-1}
        shares.append(len(left & right) / max(1, len(left | right)))
    return sum(shares) / len(shares)


def indexer_work(size: Mapping[str, int], element: int, scored: int, means: int) -> tuple[float, float]:
    """FLOPs and bytes of all queries: a multiply-add each number of each scored key and head, keys read once a query.

    ``means`` keys are averages that are kept; they are read like the others.
    """
    products = size["queries"] * (scored + means)
    return 2.0 * products * size["heads"] * size["width"], float(products * size["width"] * element)


def indexer_workload(subject: Subject, size: Mapping[str, int], choose: Choose, flat: Choose) -> Workload:
    """One candidate against the flat indexer; results differ by design, so how much is a figure."""
    keys, held = size["keys"], size["block"] * size["blocks"]
    element = subject.dtype.itemsize
    flat_work = indexer_work(size, element, keys, 0)
    flops, moved = flat_work if keys <= held else indexer_work(size, element, held, -(-keys // size["block"]))

    def figures() -> Mapping[str, float]:
        inputs = indexer_inputs(subject, size)
        return {"selection_iou": intersection_over_union(choose(*inputs), flat(*inputs))}

    return Workload(
        name=f"indexer, {keys} tokens",
        make=lambda: functools.partial(choose, *indexer_inputs(subject, size)),
        reference=lambda: functools.partial(flat, *indexer_inputs(subject, size)),
        units={"tokens": size["queries"]},
        flops=flops,
        bytes_moved=moved,
        figures=figures,
        details={**size, **ridge_figures(flops, moved, *flat_work)},
    )
