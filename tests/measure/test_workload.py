"""Workloads: a wrong result gets no speed figure; units become throughput."""

import time

import pytest
import torch

from harness.errors import CheckFailed
from harness.kinds.method import Workload
from harness.measure.workload import measure_workload

CPU = torch.device("cpu")


def sleeper(seconds, value=1.0):
    def make():
        def call():
            time.sleep(seconds)
            return torch.tensor([value, 2.0])

        return call

    return make


def figures(workload, baseline=None):
    found, samples, _ = measure_workload(workload, baseline, CPU, budget_s=30)
    return {m.metric: m for m in found}, samples


def test_the_ratio_is_the_references_time_over_the_candidates():
    work = Workload(
        name="w", make=sleeper(0.002), reference=sleeper(0.01), max_error=1e-6, units={"tokens": 10, "bytes": 1e6}
    )
    found, samples = figures(work)
    assert found["speedup"].value > 2 and found["speedup"].low <= found["speedup"].value <= found["speedup"].high
    assert found["error_rms"].value == 0
    assert found["tokens_per_s"].value == pytest.approx(10 * found["mb_per_s"].value)
    assert {m.phase for m in found.values()} == {"w"}
    assert len(samples) == 8 * 4


def test_a_wrong_result_gets_no_figure():
    work = Workload(name="w", make=sleeper(0.001, 1.1), reference=sleeper(0.001), max_error=1e-3)
    with pytest.raises(CheckFailed, match="exceeds its bound"):
        figures(work)


def test_the_baselines_workload_is_the_other_side_where_there_is_no_reference():
    found, _ = figures(Workload(name="w", make=sleeper(0.001)), Workload(name="w", make=sleeper(0.004)))
    assert found["speedup"].value > 1.5 and "error_rms" not in found


def test_without_another_side_there_is_no_ratio():
    found, _ = figures(Workload(name="w", make=sleeper(0.001), flops=1e6))
    assert "speedup" not in found and found["flops_per_s"].value > 0


def test_memory_and_a_workloads_own_figures_are_counted():
    def making(count):
        return lambda: lambda: [torch.ones(1000) for _ in range(count)]

    work = Workload(name="w", make=making(2), reference=making(5), figures=lambda: {"selection_iou": 0.5})
    found = {m.metric: m for m in measure_workload(work, None, CPU, budget_s=0.1)[0]}
    assert found["memory_ratio"].value == 2 / 5
    assert found["selection_iou"].value == 0.5 and found["selection_iou"].source == "count"
