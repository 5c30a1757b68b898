"""What this machine can do at best: memory bandwidth and matrix rates, measured here and never taken from a data sheet.

A rate is the best of many short blocks: a ceiling is what the hardware reached when nothing stood in its way. Rates
hold for one device at torch's current thread count, so they are cached under the machine key, which contains it.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.measure.kept import write_kept
from harness.measure.machine import busy, load_snapshot, machine_key
from harness.subjects.catalog import cache_dir

DTYPES = ("float32", "bfloat16", "float16")
GEMM_SIZES = (512, 1024, 2048, 4096, 8192)
BUDGET_S = 5.0
BLOCK_S = 0.02
DEFAULT_CACHE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Ceilings:
    """Rates of one device. A dtype that the device cannot multiply is absent and named in ``missing`` with the reason.

    ``copy`` counts bytes read plus bytes written per second; ``gemm`` and ``gemv`` are flop/s by dtype (a
    multiply-add is two), ``gemv_bytes`` bytes of the matrix read per second. ``buffer_bytes`` is the size of what was
    streamed: at least four times the last-level cache. ``busy`` is the line that says the machine was not quiet.
    """

    machine: str
    device: str
    threads: int
    buffer_bytes: int
    copy: float
    gemm: dict[str, float]
    gemv: dict[str, float]
    gemv_bytes: dict[str, float]
    missing: dict[str, str]
    busy: str | None
    seconds: float

    @property
    def bandwidth(self) -> float:
        """Bytes per second: the faster of copying and of reading a matrix, since a reader may outrun a copier."""
        return max([self.copy, *self.gemv_bytes.values()])

    def flops(self, dtype: str) -> float:
        """The GEMM rate of a dtype; NaN where it was not measured."""
        return self.gemm.get(dtype, math.nan)


def ceilings(device: str = "cpu", refresh: bool = False, budget_s: float = BUDGET_S) -> Ceilings:
    """The ceilings of a device, from the cache where this machine was measured before, else measured and stored.

    What was measured on a busy machine is measured once more by each process, and the better rates are kept.
    """
    key = machine_key()
    path = cache_dir() / "ceilings" / f"{key.digest}-{device.replace(':', '_')}.json"
    found = None if refresh else _read(path)
    if found is None or (found.busy and path not in _tried_again):
        _tried_again.add(path)
        found = _better(found, measure_ceilings(device, budget_s))
        write_kept(path, asdict(found))
    return found


_tried_again: set[Path] = set()


def _better(old: Ceilings | None, new: Ceilings) -> Ceilings:
    """The higher of two measurements' rates: a ceiling is what the machine can do, and others only take away."""
    if old is None:
        return new
    return replace(
        new,
        copy=max(old.copy, new.copy),
        gemm=_higher(old.gemm, new.gemm),
        gemv=_higher(old.gemv, new.gemv),
        gemv_bytes=_higher(old.gemv_bytes, new.gemv_bytes),
    )


def _higher(old: dict[str, float], new: dict[str, float]) -> dict[str, float]:
    return {dtype: max(rate, old.get(dtype, 0.0)) for dtype, rate in new.items()}


def measure_ceilings(device: str = "cpu", budget_s: float = BUDGET_S, buffer_bytes: int | None = None) -> Ceilings:
    """Measure now. ``budget_s`` bounds the timed work; filling buffers takes about half a second more on a CPU."""
    import torch

    place = torch.device(device)
    if place.type not in ("cpu", "cuda"):
        raise UsageError(f"ceilings are measured on cpu and cuda devices, not on {device!r}")
    size = buffer_bytes or streaming_bytes(place)
    before, started = load_snapshot(), time.perf_counter()
    share = budget_s / (1 + 2 * len(DTYPES))
    with torch.inference_mode():
        copy = _copy_rate(place, size, share)
        gemm, gemv, gemv_bytes, missing = {}, {}, {}, {}
        for name in DTYPES:
            try:
                gemm[name] = _gemm_rate(place, getattr(torch, name), share)
                gemv_bytes[name] = _gemv_rate(place, getattr(torch, name), size, share)
            except (RuntimeError, NotImplementedError) as error:
                missing[name] = " ".join(str(error).split())[:200]
                continue
            gemv[name] = gemv_bytes[name] * 2 / getattr(torch, name).itemsize
    after = load_snapshot()
    return Ceilings(
        machine=machine_key().short,
        device=device,
        threads=torch.get_num_threads(),
        buffer_bytes=size,
        copy=copy,
        gemm=gemm,
        gemv=gemv,
        gemv_bytes=gemv_bytes,
        missing=missing,
        busy=busy(before, after),
        seconds=time.perf_counter() - started,
    )


def streaming_bytes(device: Any) -> int:
    """Four times the last-level cache, so that what is streamed cannot stay in it; at most an eighth of free memory."""
    import psutil
    import torch

    if device.type == "cuda":
        cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", DEFAULT_CACHE_BYTES)
        room = torch.cuda.mem_get_info(device)[0]
    else:
        cache, room = _cpu_cache_bytes(), psutil.virtual_memory().available
    return int(min(4 * max(cache, 2**23), room // 8))


def _cpu_cache_bytes() -> int:
    found = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        if text.endswith("K") and text[:-1].isdigit():
            found.append(int(text[:-1]) * 1024)
    return max(found, default=DEFAULT_CACHE_BYTES)


def best_seconds(call: Callable[[], Any], budget_s: float, synchronize: Callable[[], None] = lambda: None) -> float:
    """The least seconds of one call over blocks of about 20 ms, within a budget; the first call only warms up."""
    started = time.perf_counter()
    call()
    synchronize()
    first = time.perf_counter() - started
    repeats = max(1, int(BLOCK_S / max(first, 1e-9)))
    best = math.inf
    while True:
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        synchronize()
        end = time.perf_counter()
        best = min(best, (end - begin) / repeats)
        if end - started + (end - begin) > budget_s:
            return best


def _synchronizer(device: Any) -> Callable[[], None]:
    import torch

    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)


def _filled(count: int, dtype: Any, device: Any) -> Any:
    # A short random block, repeated: as good as random for the clock, at the cost of a copy.
    import torch

    block = torch.randn(min(count, 1 << 16), device=device).to(dtype)
    return block.repeat(-(-count // block.numel()))[:count]


def _copy_rate(device: Any, size: int, budget_s: float) -> float:
    import torch

    source = _filled(size // 4, torch.float32, device)
    target = torch.empty_like(source)
    target.zero_()
    seconds = best_seconds(lambda: target.copy_(source), budget_s, _synchronizer(device))
    return float(2 * source.numel() * source.element_size() / seconds)


def _gemm_rate(device: Any, dtype: Any, budget_s: float) -> float:
    from torch.nn.functional import linear

    best, deadline = 0.0, time.perf_counter() + budget_s
    for size in GEMM_SIZES:
        left = deadline - time.perf_counter()
        # Warm-up and one block of the next size cost about twice its operations at the rate known so far.
        if best and 2 * (2 * size**3) / best > left:
            break
        left_operand, right_operand = (_filled(size * size, dtype, device).view(size, size) for _ in range(2))
        call = _bind(linear, left_operand, right_operand)
        best = max(best, 2 * size**3 / best_seconds(call, left / 2, _synchronizer(device)))
    return best


def _gemv_rate(device: Any, dtype: Any, size: int, budget_s: float) -> float:
    """Bytes of the matrix per second in a product with one vector, as one decoding step does it."""
    from torch.nn.functional import linear

    vector, matrix = _gemv_operands(device, dtype, size)
    seconds = best_seconds(_bind(linear, vector, matrix), budget_s, _synchronizer(device))
    return float(matrix.numel() * matrix.element_size() / seconds)


def _gemv_operands(device: Any, dtype: Any, size: int) -> tuple[Any, Any]:
    width = min(4096, max(1, math.isqrt(size // dtype.itemsize)))
    rows = max(1, size // dtype.itemsize // width)
    return _filled(width, dtype, device).view(1, width), _filled(rows * width, dtype, device).view(rows, width)


def _bind(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return lambda: function(*args)


def gemv_by_threads(counts: Sequence[int], rounds: int = 5, buffer_bytes: int | None = None) -> dict[int, float]:
    """Milliseconds of one bfloat16 matrix-vector product by thread count: medians over interleaved rounds.

    The thread counts take turns, so that a slow moment of the machine meets all of them. torch's own count is put
    back afterwards.
    """
    import torch
    from torch.nn.functional import linear

    kept, place = torch.get_num_threads(), torch.device("cpu")
    vector, matrix = _gemv_operands(place, torch.bfloat16, buffer_bytes or streaming_bytes(place))
    call = _bind(linear, vector, matrix)
    times: dict[int, list[float]] = {count: [] for count in counts}
    try:
        for turn in range(rounds):
            for count in counts if turn % 2 == 0 else reversed(counts):
                torch.set_num_threads(count)
                times[count].append(1e3 * best_seconds(call, BLOCK_S))
    finally:
        torch.set_num_threads(kept)
    return {count: statistics.median(values) for count, values in times.items()}


def _read(path: Path) -> Ceilings | None:
    try:
        return Ceilings(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None  # absent, cut short, or written by another version: measured again
