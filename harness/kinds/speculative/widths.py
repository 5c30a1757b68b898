"""What a forward of several tokens costs on this machine, in forwards of one token: the curve that widths follow."""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.kinds.method import Measurement
from harness.measure.kept import write_kept
from harness.measure.machine import machine_key
from harness.subjects.catalog import cache_dir
from harness.subjects.decode import synchronize
from harness.subjects.few_rows import has_few_row_kernels
from harness.subjects.runner import Runner
from harness.subjects.subject import Subject

WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
CONTEXTS = (128, 1024)
"""Tokens before the forwards that are measured; attention makes a width dearer the more there are."""
ROUNDS = 5


@dataclass(frozen=True)
class WidthCosts:
    """Seconds of a forward at some widths, rising; ``costs(width)`` is relative to one token."""

    widths: tuple[int, ...]
    seconds: tuple[float, ...]

    def __call__(self, width: int) -> float:
        """Cost of ``width`` tokens in forwards of one: between measured widths and beyond them on a line."""
        return self.seconds_of(width) / self.seconds[0]

    def seconds_of(self, width: int) -> float:
        """Seconds of a forward of ``width`` tokens."""
        if len(self.widths) == 1:
            return self.seconds[0]
        right = min(max(1, bisect_left(self.widths, width)), len(self.widths) - 1)
        (a, b), (low, high) = self.widths[right - 1 : right + 1], self.seconds[right - 1 : right + 1]
        return low + (high - low) * (width - a) / (b - a)


FLAT = WidthCosts((1,), (1.0,))
"""The curve of a device that is bound by reading weights: every width costs the same."""


@dataclass(frozen=True)
class ContextCosts:
    """Curves over the same widths after contexts of several lengths, rising."""

    contexts: tuple[int, ...]
    curves: tuple[WidthCosts, ...]

    def after(self, context: int) -> WidthCosts:
        """The curve after ``context`` tokens: on a line between measured lengths, the nearest one's outside."""
        place = bisect_left(self.contexts, context)
        if place in (0, len(self.contexts)):
            return self.curves[min(place, len(self.curves) - 1)]
        (a, b), (low, high) = self.contexts[place - 1 : place + 1], self.curves[place - 1 : place + 1]
        part = (context - a) / (b - a)
        seconds = (x + part * (y - x) for x, y in zip(low.seconds, high.seconds, strict=True))
        return WidthCosts(low.widths, tuple(seconds))


ALWAYS_FLAT = ContextCosts((0,), (FLAT,))


def best_width(
    values: Sequence[float], costs: WidthCosts, price: float = 0.0, sizes: Sequence[int] | None = None
) -> int:
    """How many parts of a draft to verify: the number ``n >= 1`` with most expected tokens for its cost.

    ``values`` holds what each part adds to the expected tokens, in the order in which parts would be added; a part is
    a token, whose value is its chance to be accepted, or a level of ``sizes`` tokens. ``price`` is what drafting one
    more part costs, in plain steps. 0 where there is nothing to draft.
    """
    best, expected, width, chosen = 0.0, 1.0, 1, 0
    for count, (value, size) in enumerate(zip(values, sizes or [1] * len(values), strict=True), 1):
        expected, width = expected + value, width + size
        gain = expected / (costs(width) + price * count)
        if gain > best:
            best, chosen = gain, count
    return chosen


_known: dict[str, ContextCosts] = {}


def width_costs(subject: Subject) -> ContextCosts:
    """The subject's curves, from the cache where this machine has measured them before."""
    dtype = str(subject.dtype).removeprefix("torch.")
    # Curves that were kept before the kernels of few rows served a type are not theirs.
    kernels = "-packed" if has_few_row_kernels(subject.model) else ""
    name = f"{subject.full_name}-{dtype}{kernels}-{subject.device}".replace("/", "_").replace(":", "_")
    path = cache_dir() / "widths" / machine_key().digest / f"{name}.json"
    if str(path) not in _known:
        costs = _read(path)
        if costs is None:
            measured = measure_widths(subject)
            # Another process may have measured meanwhile: whoever wrote first decides, so that both use one curve.
            costs = _read(path) or measured
            if costs is measured:
                curves = [{"widths": curve.widths, "seconds": curve.seconds} for curve in costs.curves]
                write_kept(path, {"contexts": costs.contexts, "curves": curves})
        _known[str(path)] = costs
    return _known[str(path)]


def _read(path: Path) -> ContextCosts | None:
    """Kept curves; None where there are none, or the file is damaged."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        curves = [WidthCosts(tuple(curve["widths"]), tuple(curve["seconds"])) for curve in held["curves"]]
        return ContextCosts(tuple(held["contexts"]), tuple(curves))
    except (OSError, ValueError, KeyError, TypeError):
        return None


class WidthProbe:
    """The curves as figures: what a forward of so many tokens costs after so many."""

    name = "width_cost"

    def measure(self, subject: Subject) -> list[Measurement]:
        """One figure a width and context."""
        costs = width_costs(subject)
        return [
            Measurement("width_cost", curve(width), phase=f"{width} after {context}", source="clock")
            for context, curve in zip(costs.contexts, costs.curves, strict=True)
            for width in curve.widths
        ]


def measure_widths(subject: Subject) -> ContextCosts:
    """A curve after each of :data:`CONTEXTS`, as far as the subject holds so many tokens."""
    contexts = sorted({min(context, subject.max_length // 2) for context in CONTEXTS})
    return ContextCosts(tuple(contexts), tuple(measure_curve(subject, context) for context in contexts))


def measure_curve(subject: Subject, context: int, widths: Sequence[int] = WIDTHS, rounds: int = ROUNDS) -> WidthCosts:
    """The least time of each width over interleaved rounds, after ``context`` tokens.

    A width is never dearer than a larger one: the device could always be given the larger.
    """
    vocabulary = int(subject.model.config.get_text_config().vocab_size)
    ids = torch.arange(context + max(widths), device=subject.device) % vocabulary
    nothing = torch.empty(0, dtype=torch.long, device=subject.device)
    least = [float("inf")] * len(widths)
    with torch.inference_mode():
        runner = Runner(subject.model, subject.new_cache)
        runner.prefill([ids[:context].tolist()])
        for visit in range(rounds + 1):
            for place, width in enumerate(widths):
                synchronize(subject.device)
                started = time.perf_counter()
                runner.forward(ids[None, :width]).float().argmax(-1).tolist()
                took = time.perf_counter() - started
                runner.commit(nothing)
                # The first round warms up.
                least[place] = min(least[place], took) if visit else least[place]
    for place in range(len(least) - 2, -1, -1):
        least[place] = min(least[place], least[place + 1])
    return WidthCosts(tuple(widths), tuple(least))
