"""Micro-benchmarks of the methods' own workloads.

pytest-benchmark calibrates, times and writes its JSON. The leaderboard's figure, the ratio to the reference from
interleaved pairs, is measured beside it and rides in ``extra_info``.
"""

from __future__ import annotations

import pytest

from harness.catalog.spec import MethodSpec
from harness.measure.workload import measure_workload
from harness.subjects.catalog import DEFAULT_MODEL

MODELS = {"pruning": DEFAULT_MODEL, "objective": "tiny-chain-sum"}
"""Whose heads, or whose text, a kind's workloads need; the others are timed with a tiny random model."""


def test_workloads(method_id, subjects, benchmark):  # type: ignore[no-untyped-def]
    """Time the method's first workload by pytest-benchmark, and every workload in pairs."""
    spec = MethodSpec.parse(method_id)
    subject = subjects(MODELS.get(spec.entry.card.kind, "tiny-random"))
    method, base = spec.build(), MethodSpec(spec.entry.card.baseline).build()
    workloads = list(method.workloads(subject))
    if not workloads:
        pytest.skip(f"{method_id} has no workloads")
    others = {} if base.card.id == method_id else {w.name: w for w in base.workloads(subject)}
    for workload in workloads:
        figures, _, share = measure_workload(workload, others.get(workload.name), subject.device, budget_s=10)
        benchmark.extra_info[workload.name] = {
            "cpu_share": share,
            **{m.metric: {"value": m.value, "low": m.low, "high": m.high} for m in figures},
        }
    benchmark(workloads[0].make())
