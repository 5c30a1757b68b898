"""The machine key is stable and complete; the busy line speaks for each of its three signs and for none."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.measure import machine
from harness.measure.machine import LoadSnapshot, MachineKey, busy, load_snapshot, machine_key, nvml_state, rapl_state

KEY = MachineKey("Chip X", 4, 8, 6, 32, ("GPU A", "GPU A"), "555.1", "2.9 AVX2", 2, "Linux 6.1 x86_64")
CALM = LoadSnapshot(10.0, 1.0, 100.0, 0.0, 0.5, 1, 2)


def test_key_is_the_same_each_time_and_follows_the_thread_count() -> None:
    first = machine_key()
    assert machine_key() == first and machine_key().digest == first.digest
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert machine_key().digest != first.digest
    finally:
        torch.set_num_threads(before)
    assert 1 <= first.available_cores <= first.logical_cores and first.ram_gib >= 1 and first.cpu


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": "Chip Y"},
        {"gpus": ("GPU A",)},
        {"gpu_driver": "555.2"},
        {"torch_build": "2.10 AVX2"},
        {"threads": 1},
        {"available_cores": 4},
    ],
)
def test_each_field_changes_the_digest(change: dict[str, object]) -> None:
    assert replace(KEY, **change).digest != KEY.digest


def test_short_is_the_digest_and_a_readable_label() -> None:
    assert len(KEY.digest) == 12 and int(KEY.digest, 16) >= 0
    assert KEY.short.startswith(KEY.digest)
    assert "Chip X" in KEY.short and "2x GPU A" in KEY.short and KEY.gpu_count == 2


def after(**change: float) -> LoadSnapshot:
    """Ten seconds later, one core of the two ours."""
    return replace(CALM, wall_s=20.0, own_cpu_s=11.0, machine_cpu_s=110.0, **change)


def test_quiet_machine_says_nothing() -> None:
    assert busy(CALM, after(), cpu_s=9.9, wall_s=10.0) is None


def test_others_are_what_the_machine_did_beyond_this_process() -> None:
    line = busy(CALM, replace(after(), machine_cpu_s=118.0, stolen_s=3.0))
    assert line == "busy machine: others used 0.8 of 2 cores (0.3 of them stolen by the hypervisor)"


def test_others_may_use_a_tenth_of_a_large_machine() -> None:
    large = replace(CALM, cores=64)
    end = replace(after(), cores=64, machine_cpu_s=110.0 + 50.0)
    assert busy(large, end) is None
    assert "others used 8.0 of 64 cores" in str(busy(large, replace(end, machine_cpu_s=110.0 + 80.0)))


def test_cpu_time_short_of_wall_time_is_busy_only_where_it_was_given() -> None:
    assert busy(CALM, after(), cpu_s=7.0, wall_s=10.0) == "busy machine: CPU time was 70% of wall time"
    assert busy(CALM, after()) is None


def test_load_above_the_cores_is_busy_before_or_after() -> None:
    for begin, end in ((replace(CALM, load_1min=3.0), after()), (CALM, after(load_1min=3.0))):
        assert busy(begin, end) == "busy machine: load 3.0 on 2 cores"


def test_an_interval_below_the_clock_resolution_is_not_judged_by_others() -> None:
    assert busy(CALM, replace(CALM, wall_s=10.1, machine_cpu_s=100.1)) is None


def test_snapshots_advance_with_work() -> None:
    first = load_snapshot()
    sum(i * i for i in range(300_000))
    second = load_snapshot()
    assert second.wall_s > first.wall_s and second.own_cpu_s >= first.own_cpu_s
    assert second.machine_cpu_s >= first.machine_cpu_s and second.threads == torch.get_num_threads()


def test_rapl_is_counted_where_files_can_be_read(tmp_path: Path) -> None:
    assert not rapl_state(tmp_path).readable
    domain = tmp_path / "intel-rapl:0"
    domain.mkdir()
    (domain / "energy_uj").write_text("1")
    state = rapl_state(tmp_path)
    assert state.readable and state.count == 1


def test_rapl_without_permission_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = tmp_path / "intel-rapl:0"
    domain.mkdir()
    (domain / "energy_uj").write_text("1")
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    state = rapl_state(tmp_path)
    assert not state.readable and "chmod" in state.reason


def test_nvml_counts_devices_with_an_energy_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda i: i)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda handle: 5000)
    assert nvml_state() == machine.CounterState(True, 2, "2 device(s) count their joules")

    def missing(handle: int) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", missing)
    assert not nvml_state().readable and "NVML" in nvml_state().reason
