"""Energy of phases by codecarbon, with its pedigree: read from a counter, or modelled from load and nameplate power.

One :class:`EnergyMeter` serves a run; each phase is a window on it. Windows are visits of their own: codecarbon looks
at the hardware once a second from a thread of the measured process, so no block that is timed runs inside one.

What counts as measured: on the CPU codecarbon's RAPL and Windows EMI modes, on the GPU the energy counter of NVML or
AMDSMI. Everything else (load and TDP, the RAM's constant watts, power that is merely sampled) is a model. Where the
component that does the work (CPU or GPU, by the meter's device) has a counter, the headline joules of a window cover
the counted components alone; else they cover all and count as a model. ``covers`` names them, ``components`` has each.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import EnvironmentFailed, UsageError, unknown_name
from harness.measure.machine import busy, load_snapshot

J_PER_KWH = 3.6e6
DEFAULT_COUNTRY = "USA"
INTENSITY_SOURCE = "codecarbon: global_energy_mix.json"
COUNTER_MODES = {"intel_rapl": "RAPL", "windows_emi": "Windows EMI"}


@dataclass(frozen=True)
class Component:
    """Joules of one component in one window; ``source`` is ``counter`` or ``model``, ``how`` says what was read."""

    joules: float
    source: str
    how: str


@dataclass(frozen=True)
class EnergyReading:
    """The energy of one window. Where ``source`` is ``none`` there are no joules, and ``reason`` says why.

    ``gross_j`` is what the covered components drew, ``net_j`` the part above ``idle_w`` (None where no idle window was
    taken), ``facility_j`` gross joules times PUE, ``co2_g`` grams for the facility's joules at ``grid_g_per_kwh``.
    ``raw`` is codecarbon's own record of the window, in its units, made with a PUE of 1.
    """

    phase: str
    seconds: float
    source: str
    reason: str
    covers: tuple[str, ...] = ()
    components: dict[str, Component] = field(default_factory=dict)
    gross_j: float | None = None
    idle_w: float | None = None
    net_j: float | None = None
    facility_j: float | None = None
    co2_g: float | None = None
    pue: float = 1.0
    country: str = DEFAULT_COUNTRY
    grid_g_per_kwh: float = 0.0
    raw: dict[str, Any] = field(default_factory=dict)

    def per_token(self, tokens: int) -> float | None:
        """Gross joules a token; None without a figure or without tokens."""
        return None if self.gross_j is None or tokens <= 0 else self.gross_j / tokens

    def net_per_token(self, tokens: int) -> float | None:
        """Joules above idle a token; None where either is unknown."""
        return None if self.net_j is None or tokens <= 0 else self.net_j / tokens


@dataclass
class Window:
    """Handle of an open window; ``reading`` is there once it has closed."""

    phase: str
    reading: EnergyReading | None = None


def grid_intensity(country: str) -> float:
    """Grams of CO2 equivalent per kWh of a country (three-letter ISO code), from codecarbon's stored table."""
    from codecarbon.core.emissions import Emissions
    from codecarbon.core.units import Energy
    from codecarbon.external.geography import GeoMetadata
    from codecarbon.input import DataSource

    data = DataSource()
    table = data.get_global_energy_mix_data()
    if country not in table:
        raise unknown_name("country", country, table, "ZOO_COUNTRY takes a three-letter ISO code")
    place = GeoMetadata(country_iso_code=country, country_name=table[country]["country_name"])
    return 1000.0 * float(Emissions(data, None).get_country_emissions(Energy.from_energy(kWh=1.0), place))


class EnergyMeter:
    """Energy windows over phases. Opening it costs about a second, in which codecarbon looks for the hardware.

    ``device`` is where the work runs. ``pue`` (at least 1) multiplies joules once, here; codecarbon is told 1.
    ``country`` picks the stored grid intensity: ``ZOO_COUNTRY``, else the USA. A window shorter than ``min_window_s``
    gives no figure but a reason.
    """

    def __init__(
        self, device: str = "cpu", pue: float = 1.0, country: str | None = None, min_window_s: float = 3.0
    ) -> None:
        if pue < 1.0:
            raise UsageError(f"PUE is facility energy over device energy, so at least 1, not {pue}")
        self.device, self.pue = str(device), pue
        self.country = country or os.environ.get("ZOO_COUNTRY") or DEFAULT_COUNTRY
        self.min_window_s = min_window_s
        self.grid_g_per_kwh = grid_intensity(self.country)
        self.idle_w: dict[str, float] = {}
        self._tracker = _make_tracker(self.country, self.grid_g_per_kwh)
        self._open: str | None = None
        self._began = 0.0
        # The first task reads tables and sets up the hardware; it must not fall into a phase.
        self._tracker.start_task("set-up")
        self._tracker.stop_task("set-up")

    def __enter__(self) -> EnergyMeter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop codecarbon's threads."""
        self._tracker.stop()

    def begin(self, phase: str) -> None:
        """Open a window; windows do not overlap."""
        if self._open is not None:
            raise RuntimeError(f"energy window {self._open!r} is still open")
        self._open = phase
        _synchronize()
        self._tracker.start_task(phase)
        self._began = time.perf_counter()

    def end(self) -> EnergyReading:
        """Close the open window and give its reading."""
        if self._open is None:
            raise RuntimeError("no energy window is open")
        _synchronize()
        seconds = time.perf_counter() - self._began
        phase, self._open = self._open, None
        return self._reading(phase, seconds, self._tracker.stop_task())

    @contextmanager
    def window(self, phase: str) -> Iterator[Window]:
        """A window as a context; the yielded handle holds the reading once it has closed."""
        handle = Window(phase)
        self.begin(phase)
        try:
            yield handle
        finally:
            handle.reading = self.end()

    def measure_idle(self, seconds: float = 10.0) -> EnergyReading:
        """Watch the machine do nothing; later readings then carry net joules. At least ``min_window_s`` seconds.

        On a busy machine the window is no idle one: it is given back with a reason, and net joules stay unknown.
        """
        before = load_snapshot()
        self.begin("idle")
        time.sleep(max(seconds, self.min_window_s))
        reading = self.end()
        others = busy(before, load_snapshot())
        self.idle_w = {}
        if others is not None:
            return replace(reading, reason=f"not idle, {others}")
        self.idle_w = {name: part.joules / reading.seconds for name, part in reading.components.items()}
        return reading

    def _reading(self, phase: str, seconds: float, record: Any) -> EnergyReading:
        inputs = EnergyReading(phase, seconds, "none", "codecarbon gave no record")
        reading = replace(inputs, pue=self.pue, country=self.country, grid_g_per_kwh=self.grid_g_per_kwh)
        if record is None:
            return reading
        reading = replace(reading, raw=dict(record.values))
        if seconds < self.min_window_s:
            return replace(reading, reason=f"window of {seconds:.1f} s is shorter than {self.min_window_s:.1f} s")
        return self._with_joules(reading, _components(self._tracker._hardware, reading.raw))

    def _with_joules(self, reading: EnergyReading, parts: dict[str, Component]) -> EnergyReading:
        covers, source, reason = headline(parts, self.device)
        reading = replace(reading, source=source, reason=reason, components=parts, covers=covers)
        if source == "none":
            return reading
        gross = sum(parts[name].joules for name in covers)
        idle = sum(self.idle_w[name] for name in covers) if set(covers) <= set(self.idle_w) else None
        return replace(
            reading,
            gross_j=gross,
            idle_w=idle,
            net_j=None if idle is None else gross - idle * reading.seconds,
            facility_j=self.pue * gross,
            co2_g=self.pue * gross / J_PER_KWH * self.grid_g_per_kwh,
        )


def covered(parts: dict[str, Component], device: str) -> tuple[tuple[str, ...], str]:
    """Which components the headline covers, and whether they are counted or modelled.

    Work on the CPU leaves the GPU out: it only idles along.
    """
    worker = "gpu" if device.startswith("cuda") else "cpu"
    near = [name for name in parts if worker == "gpu" or name != "gpu"]
    if worker in near and parts[worker].source == "counter":
        return tuple(name for name in near if parts[name].source == "counter"), "counter"
    return tuple(near), "model" if worker in near else "none"


def headline(parts: dict[str, Component], device: str) -> tuple[tuple[str, ...], str, str]:
    """What the headline covers, its source, and a line on how it was read or why there is none."""
    covers, source = covered(parts, device)
    if source == "none":
        return (), "none", f"codecarbon knows nothing of the energy of {device}"
    dead = [name for name in covers if parts[name].source == "counter" and parts[name].joules <= 0]
    if dead or sum(parts[name].joules for name in covers) <= 0:
        return (), "none", f"the energy counter or model of {', '.join(dead or covers)} did not move"
    return covers, source, "; ".join(f"{name}: {parts[name].how}" for name in covers)


def _components(hardware: list[Any], raw: dict[str, Any]) -> dict[str, Component]:
    """One component for each piece of hardware that codecarbon tracks, tagged by how it is read."""
    parts = {}
    for item in hardware:
        kind = type(item).__name__
        name = {"RAM": "ram", "GPU": "gpu"}.get(kind, getattr(item, "chip_part", "CPU").lower())
        source, how = _pedigree(item)
        parts[name] = Component(J_PER_KWH * float(raw[f"{name}_energy"]), source, how)
    return parts


def _pedigree(item: Any) -> tuple[str, str]:
    kind = type(item).__name__
    if kind == "CPU":
        mode = item._mode
        if mode in COUNTER_MODES:
            return "counter", f"{COUNTER_MODES[mode]} counter"
        generic = ", generic" if getattr(item, "_is_generic_tdp", False) else ""
        return "model", f"{mode} model on {item._tdp:.0f} W nameplate{generic}"
    if kind == "GPU":
        watched = set(item._get_gpu_ids())
        devices = [d for d in item.devices.devices if d.gpu_index in watched]
        if devices and all(d.last_energy is not None and not d._use_power_fallback for d in devices):
            return "counter", f"energy counter of {len(devices)} GPU(s)"
        return "model", "GPU power sampled once a second, no energy counter"
    if kind == "RAM":
        return "model", "constant watts by memory size"
    return "model", f"{kind} power sampled, not counted"


def _make_tracker(country: str, grid_g_per_kwh: float) -> Any:
    """A codecarbon tracker that writes nothing, asks nobody and takes none of its settings from files around it."""
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.external.logger import set_logger_level

    set_logger_level("critical")
    unset = ("region", "cloud_provider", "cloud_region", "electricitymaps_api_token", "emissions_endpoint")
    found_here = ("force_cpu_power", "force_ram_power", "gpu_ids")
    tracker = OfflineEmissionsTracker(
        country_iso_code=country,
        force_carbon_intensity_g_co2e_kwh=grid_g_per_kwh,
        output_methods=[],
        output_handlers=[],
        output_dir=".",
        log_level="critical",
        pue=1.0,
        measure_power_secs=1.0,
        tracking_mode="machine",
        force_mode_cpu_load=False,
        rapl_include_dram=True,
        allow_multiple_runs=True,
        **dict.fromkeys(unset + found_here),
    )
    # codecarbon swallows what its constructor raises, so a failure shows only in what is missing afterwards.
    if not hasattr(tracker, "_hardware"):
        raise EnvironmentFailed("codecarbon could not set up its tracker; run without energy windows")
    return tracker


def _synchronize() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def codecarbon_mode(device: str = "cpu") -> dict[str, Any]:
    """What codecarbon can do here for work on a device: the source of its headline, and what it does by component."""
    tracker = _make_tracker(DEFAULT_COUNTRY, grid_intensity(DEFAULT_COUNTRY))
    tracker.get_detected_hardware()
    parts = _components(tracker._hardware, dict.fromkeys(("cpu_energy", "gpu_energy", "ram_energy"), 0.0))
    covers, source = covered(parts, device)
    how = {name: f"{part.source}: {part.how}" for name, part in parts.items()}
    return {"source": source, "covers": list(covers), "components": how}
