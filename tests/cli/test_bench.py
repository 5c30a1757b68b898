"""The table of `zoo bench`: one row a workload, with what it counts itself at the end."""

from harness.cli.bench import _rows


def test_a_row_shows_ratio_interval_memory_and_the_workloads_own_counts():
    figures = {
        "cpu_share": 0.9,
        "speedup": {"value": 2.0, "low": 1.5, "high": 2.5},
        "call_p50": {"value": 3.0},
        "memory_ratio": {"value": 0.3},
        "selection_iou": {"value": 0.99},
    }
    document = {"benchmarks": [{"params": {"method_id": "hisa_indexer"}, "extra_info": {"w": figures}}]}
    assert _rows(document) == [["hisa_indexer", "w", 2.0, "[1.5, 2.5]", 3.0, None, 0.3, "selection_iou 0.99"]]
