"""Peak memory of a phase: resident memory by a sampling thread, device memory by CUDA's own high-water mark."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from harness.errors import UsageError


@dataclass
class MemoryPeak:
    """Bytes of one phase; complete once its context has closed. Device figures are None on the CPU.

    ``rss_baseline`` is the process's resident memory when the phase began, so ``rss_added`` is what the phase put on
    top: pages that were freed before but not given back to the system are part of the baseline. ``samples`` says how
    often the peak was looked at; a peak shorter than the interval between samples can be missed.
    """

    interval_s: float
    rss_baseline: int
    rss_peak: int
    samples: int = 0
    device_baseline: int | None = None
    device_peak: int | None = None

    @property
    def rss_added(self) -> int:
        """Resident bytes above the baseline."""
        return self.rss_peak - self.rss_baseline

    @property
    def device_added(self) -> int | None:
        """Bytes that torch's CUDA allocator held above its baseline."""
        if self.device_peak is None or self.device_baseline is None:
            return None
        return self.device_peak - self.device_baseline

    def observe(self, rss: int) -> None:
        """Count one reading of resident memory."""
        self.samples += 1
        self.rss_peak = max(self.rss_peak, rss)


class _Sampler(threading.Thread):
    def __init__(self, process: psutil.Process, peak: MemoryPeak) -> None:
        super().__init__(name="zoo-memory", daemon=True)
        self.process, self.peak = process, peak
        self.closed = threading.Event()

    def run(self) -> None:
        while not self.closed.wait(self.peak.interval_s):
            self.peak.observe(self.process.memory_info().rss)


@contextmanager
def peak_memory(device: Any = "cpu", interval_s: float = 0.01) -> Iterator[MemoryPeak]:
    """Watch a phase; yields the record that is complete when the context closes, also after an exception.

    ``device`` is a torch device or its name. A reading takes some ten microseconds, so the default interval costs
    about a thousandth of one core; phases that are timed to better than that are watched in a visit of their own.
    """
    if interval_s <= 0:
        raise UsageError(f"the sampling interval must be positive, not {interval_s}")
    process = psutil.Process()
    on_cuda = str(device).startswith("cuda")
    if on_cuda:
        import torch

        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    rss = process.memory_info().rss
    peak = MemoryPeak(interval_s, rss_baseline=rss, rss_peak=rss)
    if on_cuda:
        peak.device_baseline = torch.cuda.memory_allocated(device)
    sampler = _Sampler(process, peak)
    sampler.start()
    try:
        yield peak
    finally:
        sampler.closed.set()
        sampler.join()
        peak.observe(process.memory_info().rss)
        if on_cuda:
            torch.cuda.synchronize(device)
            peak.device_peak = torch.cuda.max_memory_allocated(device)


def tensor_bytes_peak(call: Callable[[], Any]) -> int:
    """The most bytes that tensors made by one call held at one time, whatever the device: a count without noise.

    What was there before, such as weights and inputs, is not counted, nor what an operator makes and frees inside.
    """
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    held: dict[int, int] = {}
    peak = 0

    def storages(tree: Any) -> list[Any]:
        tensors = (x for x in tree_leaves(tree) if isinstance(x, Tensor))
        # Weights in oneDNN's own order have no storage that could be asked; like weights, they are not counted.
        return [x.untyped_storage() for x in tensors if not x.is_mkldnn]

    def freed(address: int) -> None:
        held.pop(address, None)

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal peak
            given = {id(storage) for storage in storages((args, kwargs))}
            result = func(*args, **(kwargs or {}))
            for storage in storages(result):
                if id(storage) not in held and id(storage) not in given:
                    held[id(storage)] = storage.nbytes()
                    weakref.finalize(storage, freed, id(storage))
            peak = max(peak, sum(held.values()))
            return result

    with Counting():  # type: ignore[no-untyped-call]
        call()
    return peak
