"""codecarbon's pedigree is told truly: fakes stand for RAPL files and for a GPU with an energy counter."""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from codecarbon.core import hardware_cache
from codecarbon.core.gpu_device import GPUDevice

from harness.errors import EnvironmentFailed, UsageError
from harness.measure import energy
from harness.measure.energy import (
    J_PER_KWH,
    Component,
    EnergyMeter,
    EnergyReading,
    codecarbon_mode,
    grid_intensity,
    headline,
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder to see what is written in, no proxy for a network, and no hardware remembered between tests."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.delenv("ZOO_COUNTRY", raising=False)
    hardware_cache.clear_cache()
    yield
    hardware_cache.clear_cache()


@pytest.fixture
def rapl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A readable RAPL package; the returned function adds joules to it. Its counter wraps at 1000 J."""
    domain = tmp_path / "powercap" / "intel-rapl" / "intel-rapl:0"
    domain.mkdir(parents=True)
    (domain / "name").write_text("package-0")
    (domain / "max_energy_range_uj").write_text("1000000000")
    (domain / "energy_uj").write_text("990000000")

    def add(joules: float) -> None:
        now = (float((domain / "energy_uj").read_text()) + 1e6 * joules) % 1e9
        (domain / "energy_uj").write_text(str(int(now)))

    from codecarbon.core import cpu
    from codecarbon.external import hardware

    monkeypatch.setattr(cpu, "is_rapl_available", lambda: True)
    monkeypatch.setattr(
        hardware, "IntelRAPL", lambda rapl_dir, **rest: cpu.IntelRAPL(str(tmp_path / "powercap" / "intel-rapl"), **rest)
    )
    return add


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """One GPU; ``joules`` is its energy counter (None: it has none), ``watts`` its power."""
    state: dict[str, Any] = {"joules": 100.0, "watts": 50.0}

    class Device(GPUDevice):
        def _init_static_details(self) -> None:
            self._gpu_name, self._uuid, self._total_memory, self._power_limit = "Fake", "u", 1, 300

        def _get_total_energy_consumption(self) -> float | None:
            return None if state["joules"] is None else 1000 * state["joules"]

        def _get_power_usage(self) -> float:
            return float(state["watts"])

    class Devices:
        def __init__(self) -> None:
            self.devices = [Device(handle=None, gpu_index=0)]
            self.device_count = 1

        def start(self) -> None:
            self.devices[0].start()

        def get_gpu_static_info(self) -> list[dict[str, Any]]:
            return [self.devices[0].get_static_details()]

        def get_gpu_details(self) -> list[dict[str, Any]]:
            return [{"name": "Fake"}]

        def get_delta(self, duration: Any) -> list[dict[str, Any]]:
            return [self.devices[0].delta(duration)]

        def sample_power(self, gpu_ids: Any = None) -> None:
            self.devices[0].sample_power()

    from codecarbon.core import gpu as codecarbon_gpu
    from codecarbon.external import hardware

    monkeypatch.setattr(codecarbon_gpu, "is_nvidia_system", lambda: True)
    monkeypatch.setattr(hardware, "AllGPUDevices", Devices)
    return state


Meter = functools.partial(EnergyMeter, min_window_s=0.0)


def one_window(meter: EnergyMeter, during: Callable[[], None], seconds: float = 0.05) -> EnergyReading:
    with meter.window("decode") as window:
        during()
        time.sleep(seconds)
    assert window.reading is not None
    return window.reading


def test_a_rapl_counter_gives_counted_joules(rapl: Callable[[float], None]) -> None:
    with Meter(pue=1.5) as meter:
        reading = one_window(meter, lambda: rapl(7.0))
        again = one_window(meter, lambda: rapl(30.0))  # the counter wraps in this window
    assert reading.source == "counter" and reading.covers == ("cpu",)
    assert reading.gross_j == pytest.approx(7.0) and again.gross_j == pytest.approx(30.0)
    assert reading.facility_j == pytest.approx(1.5 * 7.0)
    assert reading.components["cpu"].source == "counter" and "RAPL" in reading.components["cpu"].how
    assert reading.components["ram"].source == "model"  # in the record, not in the headline
    assert reading.per_token(14) == pytest.approx(0.5)


def test_pue_is_applied_once_and_co2_follows_the_grid(rapl: Callable[[float], None]) -> None:
    with Meter(pue=2.0, country="FRA") as meter:
        reading = one_window(meter, lambda: rapl(9.0))
    assert reading.raw["pue"] == 1.0 and reading.raw["cpu_energy"] * J_PER_KWH == pytest.approx(9.0)
    assert reading.gross_j == pytest.approx(9.0) and reading.facility_j == pytest.approx(18.0)
    assert reading.co2_g == pytest.approx(18.0 / J_PER_KWH * grid_intensity("FRA"))
    assert (reading.pue, reading.country) == (2.0, "FRA")


def test_a_counter_that_stands_still_gives_no_figure(rapl: Callable[[float], None]) -> None:
    with Meter() as meter:
        reading = one_window(meter, lambda: None)
    assert reading.source == "none" and reading.gross_j is None and "did not move" in reading.reason


def test_without_a_counter_the_figure_is_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from codecarbon.core import cpu

    monkeypatch.setattr(cpu, "is_rapl_available", lambda: False)
    with Meter() as meter:
        reading = one_window(meter, lambda: None)
    assert reading.source == "model" and set(reading.covers) == {"cpu", "ram"}
    assert reading.gross_j is not None and reading.gross_j > 0
    assert "nameplate" in reading.components["cpu"].how
    assert codecarbon_mode()["source"] == "model"


def test_a_gpu_counter_serves_work_on_the_gpu_and_stays_out_of_work_on_the_cpu(gpu: dict[str, Any]) -> None:
    def draw() -> None:
        gpu["joules"] += 12.0

    with Meter(device="cuda:0") as meter:
        reading = one_window(meter, draw)
    assert reading.source == "counter" and reading.covers == ("gpu",) and reading.gross_j == pytest.approx(12.0)
    with Meter(device="cpu") as meter:
        reading = one_window(meter, draw)
    assert reading.source == "model" and "gpu" not in reading.covers and "gpu" in reading.components


def test_both_counters_add_up(gpu: dict[str, Any], rapl: Callable[[float], None]) -> None:
    def draw() -> None:
        gpu["joules"] += 12.0
        rapl(3.0)

    with Meter(device="cuda") as meter:
        reading = one_window(meter, draw)
    assert set(reading.covers) == {"cpu", "gpu"} and reading.gross_j == pytest.approx(15.0)


def test_gpu_power_without_a_counter_is_a_model(gpu: dict[str, Any]) -> None:
    gpu["joules"] = None
    with Meter(device="cuda") as meter:
        reading = one_window(meter, lambda: None, seconds=0.2)
    assert reading.source == "model" and "sampled" in reading.components["gpu"].how
    assert reading.components["gpu"].joules == pytest.approx(50.0 * 0.2, rel=0.5)


def test_net_joules_are_above_idle(rapl: Callable[[float], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "busy", lambda *_: None)
    with Meter() as meter:
        assert one_window(meter, lambda: rapl(1.0)).net_j is None
        real_sleep = time.sleep
        monkeypatch.setattr(energy.time, "sleep", lambda s: (rapl(0.5), real_sleep(s)))
        idle = meter.measure_idle(0.1)
        monkeypatch.setattr(energy.time, "sleep", real_sleep)
        reading = one_window(meter, lambda: rapl(8.0), seconds=0.2)
    assert idle.gross_j == pytest.approx(0.5)
    assert reading.idle_w == pytest.approx(0.5 / idle.seconds)
    assert reading.net_j == pytest.approx(8.0 - 0.5 / idle.seconds * reading.seconds)
    assert reading.net_per_token(4) == pytest.approx(reading.net_j / 4)  # type: ignore[operator]


def test_a_busy_machine_gives_no_idle_power(rapl: Callable[[float], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "busy", lambda *_: "busy machine: load 9.0 on 2 cores")
    with Meter() as meter:
        idle = meter.measure_idle(0.01)
        reading = one_window(meter, lambda: rapl(8.0))
    assert "not idle, busy machine" in idle.reason
    assert reading.net_j is None and reading.idle_w is None and reading.gross_j == pytest.approx(8.0)


def test_a_short_window_gives_a_reason_and_no_figure() -> None:
    with EnergyMeter(min_window_s=3.0) as meter:
        reading = one_window(meter, lambda: None, seconds=0.0)
    assert reading.source == "none" and reading.gross_j is None and reading.co2_g is None
    assert reading.reason == "window of 0.0 s is shorter than 3.0 s"
    assert reading.per_token(5) is None and reading.raw


def test_nothing_is_written_and_nothing_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    (tmp_path / "cwd" / ".codecarbon.config").write_text(
        "[codecarbon]\npue=3.0\nsave_to_file=true\nelectricitymaps_api_token=t\ncloud_provider=aws\n"
    )
    with Meter() as meter:
        reading = one_window(meter, lambda: None)
    assert [file.name for file in (tmp_path / "cwd").iterdir()] == [".codecarbon.config"]
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""
    assert reading.raw["pue"] == 1.0 and reading.raw["cloud_provider"] == ""


def test_a_window_closes_with_an_exception_and_windows_do_not_overlap() -> None:
    with Meter() as meter:
        with pytest.raises(ValueError, match="inside"), meter.window("a"):
            raise ValueError("inside")
        meter.begin("b")
        with pytest.raises(RuntimeError, match="'b' is still open"):
            meter.begin("c")
        assert meter.end().phase == "b"
        with pytest.raises(RuntimeError, match="no energy window"):
            meter.end()


def test_country_comes_from_the_environment_and_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_COUNTRY", "SWE")
    with Meter() as meter:
        assert meter.country == "SWE" and meter.grid_g_per_kwh < grid_intensity("USA")
    with pytest.raises(UsageError, match=r"unknown country 'USQ'.*did you mean"):
        EnergyMeter(country="USQ")
    with pytest.raises(UsageError, match="PUE"):
        EnergyMeter(pue=0.9)


def test_a_tracker_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from codecarbon import OfflineEmissionsTracker

    def fail(self: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr(OfflineEmissionsTracker, "_initialize_runtime_state", fail)
    with pytest.raises(EnvironmentFailed, match="codecarbon could not"):
        EnergyMeter()


def test_headline_never_mixes_counted_with_modelled() -> None:
    counted, modelled = Component(2.0, "counter", "c"), Component(50.0, "model", "m")
    assert headline({"ram": modelled, "cpu": counted}, "cpu") == (("cpu",), "counter", "cpu: c")
    assert headline({"ram": modelled, "gpu": counted}, "cuda")[:2] == (("gpu",), "counter")
    assert headline({"cpu": counted, "gpu": modelled}, "cuda")[:2] == (("cpu", "gpu"), "model")
    assert headline({"ram": modelled}, "cuda")[1] == "none"
    assert headline({"cpu": replace(counted, joules=0.0)}, "cpu")[1] == "none"
