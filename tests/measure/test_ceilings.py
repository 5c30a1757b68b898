"""Ceilings are positive and complete, best of blocks, cached by machine, and measured again where the cache is bad."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import UsageError
from harness.measure import ceilings as module
from harness.measure.ceilings import DTYPES, Ceilings, best_seconds, ceilings, gemv_by_threads, measure_ceilings

SMALL = 2**18


@pytest.fixture(autouse=True)
def small_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny operands, and a cache folder of the test's own."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "GEMM_SIZES", (32, 64))
    monkeypatch.setattr(module, "BLOCK_S", 0.001)
    monkeypatch.setattr(module, "streaming_bytes", lambda device: SMALL)


def test_rates_are_positive_for_every_dtype_that_runs() -> None:
    found = measure_ceilings(budget_s=0.05)
    assert found.copy > 0 and found.seconds > 0 and found.buffer_bytes == SMALL
    assert set(found.gemm) | set(found.missing) == set(DTYPES) and "float32" in found.gemm
    for rates in (found.gemm, found.gemv, found.gemv_bytes):
        assert all(math.isfinite(rate) and rate > 0 for rate in rates.values())
    assert found.gemv["bfloat16"] == pytest.approx(found.gemv_bytes["bfloat16"])  # two flops for two bytes
    assert found.gemv["float32"] == pytest.approx(found.gemv_bytes["float32"] / 2)
    assert found.threads == torch.get_num_threads()


def test_bandwidth_is_the_fastest_stream_and_flops_of_an_unmeasured_dtype_is_nan() -> None:
    found = Ceilings("m", "cpu", 1, 8, 10.0, {"float32": 5.0}, {}, {"float32": 12.0}, {}, None, 0.1)
    assert found.bandwidth == 12.0 and found.flops("float32") == 5.0 and math.isnan(found.flops("float16"))
    assert Ceilings("m", "cpu", 1, 8, 10.0, {}, {}, {}, {"float32": "no"}, None, 0.1).bandwidth == 10.0


def test_a_dtype_that_cannot_multiply_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._gemm_rate

    def rate(device: Any, dtype: Any, budget_s: float) -> float:
        if dtype == torch.float16:
            raise RuntimeError("addmm not\nimplemented for Half")
        return real(device, dtype, budget_s)

    monkeypatch.setattr(module, "_gemm_rate", rate)
    found = measure_ceilings(budget_s=0.05)
    assert found.missing == {"float16": "addmm not implemented for Half"} and "float16" not in found.gemv


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    real = measure_ceilings

    def measure(device: str, budget_s: float) -> Ceilings:
        calls.append(device)
        return real(device, 0.02)

    monkeypatch.setattr(module, "measure_ceilings", measure)
    return calls


def test_they_are_measured_once_and_again_on_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    first = ceilings()
    assert ceilings() == first and calls == ["cpu"]
    ceilings(refresh=True)
    assert calls == ["cpu", "cpu"]


@pytest.mark.parametrize("content", ["", "{", '{"copy": 1}', "[]"])
def test_a_spoilt_cache_file_is_measured_again(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    first = ceilings()
    (file,) = (tmp_path / "ceilings").iterdir()
    file.write_text(content)
    assert ceilings().gemm.keys() == first.gemm.keys() and len(calls) == 2


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch)
    (tmp_path / "ceilings").write_text("a file where the folder should be")
    assert ceilings().copy > 0


def test_another_device_type_is_refused() -> None:
    with pytest.raises(UsageError, match="meta"):
        measure_ceilings("meta")


def test_best_seconds_takes_the_least_and_stops_at_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    durations = iter([5.0, 3.0, 1.0, 2.0, 4.0, 9.0, 9.0, 9.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def call() -> None:
        now[0] += next(durations)

    assert best_seconds(call, budget_s=12.0) == 1.0  # 5 warms up; 3, 1, 2 are timed; one more would pass 12


def test_thread_counts_take_turns_and_torch_is_put_back() -> None:
    before = torch.get_num_threads()
    times = gemv_by_threads([1, 2], rounds=2)
    assert set(times) == {1, 2} and all(value > 0 for value in times.values())
    assert torch.get_num_threads() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_rates_are_positive() -> None:
    found = measure_ceilings("cuda", budget_s=0.1)
    assert found.copy > 0 and set(found.gemm) == set(DTYPES)
