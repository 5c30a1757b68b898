"""Times a method's workloads against their references, after the results of both have been compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from harness.errors import CheckFailed
from harness.kinds.kernel import result_error
from harness.kinds.method import Measurement, Workload
from harness.measure.memory import peak_memory, tensor_bytes_peak
from harness.measure.pairs import ORDER, SELF_ORDER, PairRun, Side, run_pairs, timed_sides
from harness.stats.tails import quantile
from harness.subjects.decode import synchronize

CALLS = 8


def _side(call: Callable[[], Any], device: torch.device) -> Side:
    def synchronized() -> Any:
        result = call()
        synchronize(device)
        return None if result is None else 0

    @contextmanager
    def side(unit: int) -> Iterator[Callable[[], Any]]:
        yield synchronized

    return side


def agreement(workload: Workload, call: Callable[[], Any], other: Callable[[], Any] | None = None) -> float | None:
    """Relative RMS difference of a call's result from another's (default: the workload's own reference).

    None where the workload bounds no error or nothing is there to compare with; :class:`CheckFailed` above the bound.
    """
    if other is None and workload.reference is not None:
        other = workload.reference()
    if workload.max_error is None or other is None:
        return None
    error = result_error(call(), other())
    if not error <= workload.max_error:
        raise CheckFailed(f"workload {workload.name}: error {error:.2e} exceeds its bound {workload.max_error:.0e}")
    return error


def measure_workload(
    workload: Workload, baseline: Workload | None, device: torch.device, budget_s: float
) -> tuple[list[Measurement], list[dict[str, Any]], float]:
    """Figures, raw samples and CPU share of one workload.

    The other side is the workload's own reference, else the baseline method's workload of the same name, else the
    candidate itself. Raises :class:`CheckFailed` where the results differ by more than ``max_error``: a wrong result
    gets no speed figure.
    """
    candidate = workload.make()
    other = workload.reference() if workload.reference is not None else baseline.make() if baseline else candidate
    found = []
    error = None if other is candidate else agreement(workload, candidate, other)
    if error is not None:
        found.append(Measurement("error_rms", error, phase=workload.name, n=1, source="count"))
    with peak_memory(device) as peak:
        candidate()
    held = peak.rss_peak if peak.device_peak is None else peak.device_peak
    found.append(Measurement("peak_memory_bytes", float(held), phase=workload.name, n=1, source="count"))
    other()
    found += _counts(workload, candidate, other)
    order = SELF_ORDER if other is candidate else ORDER
    run = run_pairs(timed_sides(_side(candidate, device), _side(other, device)), range(CALLS), budget_s, order=order)
    found += _figures(workload, run, paired=other is not candidate)
    samples = [
        {"side": b.side, "unit": b.unit, "name": f"{workload.name}.wall_s", "value": b.wall_s} for b in run.blocks
    ]
    return found, samples, run.cpu_share


def _counts(workload: Workload, candidate: Callable[[], Any], other: Callable[[], Any]) -> list[Measurement]:
    """What the workload counts itself, and the memory of a call against the other side's where tensors are made."""
    counted = dict(workload.figures()) if workload.figures else {}
    if other is not candidate and (theirs := tensor_bytes_peak(other)):
        counted["memory_ratio"] = tensor_bytes_peak(candidate) / theirs
    return [Measurement(name, value, n=1, phase=workload.name, source="count") for name, value in counted.items()]


def _figures(workload: Workload, run: PairRun, paired: bool) -> list[Measurement]:
    times = [b.wall_s for b in run.of("candidate")]
    n = len(times)
    found = []
    if paired:
        ratio = run.speedup()
        found.append(Measurement("speedup", ratio.value, ratio.low, ratio.high, ratio.n, workload.name, "clock"))
    rates = {
        "call_p50": 1e3 * quantile(times, 0.5),
        "tokens_per_s": workload.units.get("tokens", math.nan) / min(times),
        "mb_per_s": 1e-6 * workload.units.get("bytes", math.nan) / min(times),
        "flops_per_s": (workload.flops or math.nan) / min(times),
    }
    found += [
        Measurement(name, value, n=n, phase=workload.name, source="clock")
        for name, value in rates.items()
        if math.isfinite(value)
    ]
    return found
