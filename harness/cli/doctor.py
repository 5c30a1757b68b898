"""``zoo doctor``: what can be measured on this machine, and what it can do at best."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli import options, output

WORTHWHILE = 0.05
"""More threads are advised only where they save at least 5% of the time."""


def doctor(
    refresh: Annotated[bool, typer.Option("--refresh", help="Measure the ceilings anew, cached or not.")] = False,
    noise: Annotated[
        bool, typer.Option("--noise", help="Measure the noise floor: equal sides against each other, some minutes.")
    ] = False,
    noise_model: Annotated[str, typer.Option("--noise-model", help="Model whose decoding is timed.")] = "tiny-random",
    repeats: Annotated[int, typer.Option("--repeats", min=4, help="Comparisons a layout, for --noise.")] = 12,
    energy: Annotated[float, typer.Option("--energy", min=0, help="Energy window in s, for --noise.")] = 0.0,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Torch threads, for --noise.")] = 1,
    device: options.Device = "auto",
    json_: options.Json = False,
) -> None:
    """What can be measured here: devices, counters, ceilings, noise floor, thread advice, versions."""
    if noise:
        _measure_noise(noise_model, device, threads, repeats, energy)
    report = examine(device, refresh, threads)
    if json_:
        output.print_json(report)
    else:
        output.print_table(("", "what", "found"), _rows(report))


def _measure_noise(model: str, device: str, threads: int, repeats: int, energy_s: float) -> None:
    """Measure the floor and keep it under the machine's key."""
    from harness.gate.floors import measure_noise
    from harness.run.lockstep import Place

    place = Place(model, device, threads=threads)
    with tempfile.TemporaryDirectory() as work:
        measure_noise(place, Path(work) / "stations.log", output.progress, repeats, energy_s=energy_s)


def examine(device: str = "auto", refresh: bool = False, noise_threads: int = 1) -> dict[str, Any]:
    """Everything that ``zoo doctor`` shows, as plain data. Takes some ten seconds the first time on a machine.

    The noise floor shown is that of ``noise_threads`` torch threads, as `zoo gate` uses them.
    """
    from harness.measure.ceilings import ceilings
    from harness.measure.energy import codecarbon_mode
    from harness.measure.machine import busy, load_snapshot, machine_key, nvml_state, rapl_state
    from harness.measure.noise import read_noise
    from harness.measure.provenance import environment, versions

    place = _pick(device)
    cache = _cache_state()
    before = load_snapshot()
    key = machine_key()
    threads = _thread_advice(key.available_cores)
    found = ceilings(place, refresh)
    after = load_snapshot()
    threads["caution"] = busy(before, after)
    return {
        "machine": asdict(key) | {"digest": key.digest, "label": key.label},
        "load": {"one_minute": after.load_1min, "cores": after.cores, "busy": threads["caution"]},
        "devices": ["cpu", *(f"cuda:{i} {name}" for i, name in enumerate(key.gpus))],
        "dtypes": {name: found.missing.get(name, "runs") for name in (*found.gemm, *found.missing)},
        "ceilings": asdict(found) | {"bandwidth": found.bandwidth},
        "noise": asdict(known) if (known := read_noise(replace(key, threads=noise_threads).digest)) else None,
        "threads": threads,
        "counters": {
            "rapl": asdict(rapl_state()),
            "nvml": asdict(nvml_state()),
            "codecarbon": codecarbon_mode(place),
        },
        "versions": versions(),
        "environment": environment(),
        "cache": cache,
        "model": _model_state(),
    }


def _pick(device: str) -> str:
    import torch

    from harness.errors import EnvironmentFailed
    from harness.subjects.load import pick_device

    place = pick_device(device)
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise EnvironmentFailed(f"no device {device!r}: torch sees {torch.cuda.device_count()} CUDA device(s)")
    return str(place)


def thread_counts(cores: int) -> list[int]:
    """Thread counts worth trying: powers of two below the number of cores, and that number."""
    return sorted({1 << i for i in range(cores.bit_length()) if 1 << i < cores} | {cores})


def advise(milliseconds: dict[int, float]) -> int:
    """The fewest threads that are within 5% of the fastest."""
    limit = min(milliseconds.values()) / (1 - WORTHWHILE)
    return min(count for count, value in milliseconds.items() if value <= limit)


def _thread_advice(cores: int) -> dict[str, Any]:
    import torch

    from harness.measure.ceilings import gemv_by_threads

    times = gemv_by_threads(thread_counts(cores))
    best = advise(times)
    return {
        "current": torch.get_num_threads(),
        "gemv_ms": {str(count): value for count, value in times.items()},
        "fastest": best,
        "advice": f"OMP_NUM_THREADS={best}",
    }


def _cache_state() -> dict[str, Any]:
    from harness.errors import EnvironmentFailed
    from harness.subjects.catalog import cache_dir

    try:
        folder = cache_dir()
    except OSError as error:
        raise EnvironmentFailed(
            f"cannot make the cache folder: {error}; set ZOO_CACHE to one that can be written"
        ) from error
    return {"folder": str(folder), "free_bytes": shutil.disk_usage(folder).free}


def _model_state() -> dict[str, Any]:
    from harness.subjects.catalog import DEFAULT_MODEL, cache_dir
    from harness.subjects.embedded import MEMBER, SHA256

    file = cache_dir() / "downloads" / MEMBER.rsplit("/", 1)[-1]
    folder = cache_dir() / "models" / f"{file.stem}-{SHA256[:16]}"
    if (folder / "config.json").is_file():
        state = "ready"
    else:
        state = "downloaded, converted at first use" if file.is_file() else "absent, fetched at first use"
    return {"name": DEFAULT_MODEL, "state": state}


def _rows(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Section, name and finding, in the order of the page."""
    machine, found, threads = report["machine"], report["ceilings"], report["threads"]
    rows = [("machine", machine["digest"], machine["label"]), ("", "system", machine["system"])]
    rows += [("devices" if i == 0 else "", name, "") for i, name in enumerate(report["devices"])]
    load = report["load"]
    rows.append(("load", f"{load['one_minute']:.2f} on {load['cores']} cores", load["busy"] or "quiet"))
    where = f"{found['device']}, {found['threads']} thread(s)"
    size = f"buffers of {found['buffer_bytes'] / 2**20:.0f} MiB"
    rows.append(("ceilings", where, _quiet(found["busy"], size)))
    rows.append(("", "copy", f"{found['copy'] / 1e9:.1f} GB/s, read plus written"))
    for name, state in report["dtypes"].items():
        rows.append(("", name, _rates(found, name) if state == "runs" else f"does not run: {state}"))
    rows += _noise_rows(report["noise"])
    times = ", ".join(f"{count}: {ms:.2f} ms" for count, ms in threads["gemv_ms"].items())
    rows.append(("threads", threads["advice"], f"now {threads['current']}; one GEMV by threads {times}"))
    if threads["caution"]:
        rows.append(("", "caution", f"{threads['caution']}; ask again when it is quiet"))
    counters = report["counters"]
    for i, name in enumerate(("rapl", "nvml")):
        rows.append(("counters" if i == 0 else "", name, counters[name]["reason"]))
    rows.append(("", "codecarbon", _source(counters["codecarbon"])))
    rows += [("", f"  {name}", how) for name, how in counters["codecarbon"]["components"].items()]
    for i, (name, version) in enumerate(report["versions"].items()):
        rows.append(("versions" if i == 0 else "", name, version or "not installed"))
    for i, (name, value) in enumerate(report["environment"].items()):
        rows.append(("environment" if i == 0 else "", name, value))
    cache = report["cache"]
    rows.append(("cache", f"{cache['free_bytes'] / 2**30:.1f} GiB free", cache["folder"]))
    rows.append(("model", report["model"]["name"], report["model"]["state"]))
    return rows


def _noise_rows(noise: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    if noise is None:
        return [("noise floor", "not measured", "zoo doctor --noise measures it")]
    rows = [("noise floor", noise["measured"], noise["busy"] or f"machine was quiet, decoding of {noise['model']}")]
    for layout, clocks in noise["floors"].items():
        for clock, floor in clocks.items():
            seen = f"A/A ratios from {floor['low']:+.2%} to {floor['high']:+.2%} in {floor['n']} comparisons"
            rows.append(("", f"{layout}, {clock}", f"{floor['value']:.2%}; {seen}"))
    return rows


def _source(mode: dict[str, Any]) -> str:
    return f"source {mode['source']}, of {' and '.join(mode['covers'])}"


def _quiet(busy: str | None, size: str) -> str:
    return f"{busy} when they were measured; --refresh when it is quiet" if busy else f"machine was quiet, {size}"


def _rates(found: dict[str, Any], dtype: str) -> str:
    gemm, gemv, read = found["gemm"][dtype], found["gemv"][dtype], found["gemv_bytes"][dtype]
    return f"GEMM {gemm / 1e9:.1f} GFLOP/s, GEMV {gemv / 1e9:.1f} GFLOP/s ({read / 1e9:.1f} GB/s read)"
