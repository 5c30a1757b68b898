"""Costs of widths: between measured points, kept on disk, and the width they choose."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.kinds.speculative import widths
from harness.kinds.speculative.widths import FLAT, ContextCosts, WidthCosts, best_width, measure_curve, width_costs

CURVE = WidthCosts((1, 2, 4), (2.0, 3.0, 4.0))


@pytest.mark.parametrize(("width", "cost"), [(1, 1.0), (2, 1.5), (3, 1.75), (4, 2.0), (6, 2.5)])
def test_costs_lie_on_lines_between_and_beyond_the_measured(width, cost):
    assert CURVE(width) == pytest.approx(cost)


def test_the_flat_curve_costs_the_same_everywhere():
    assert FLAT(1) == FLAT(64) == 1.0


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0, 0.5))
def test_the_best_width_is_that_of_a_full_search(values, price):
    def gain(width):
        return (1 + sum(values[:width])) / (CURVE(width + 1) + price * width)

    chosen = best_width(values, CURVE, price)
    assert bool(chosen) is bool(values)
    if values:
        assert gain(chosen) == pytest.approx(max(map(gain, range(1, len(values) + 1))))


def test_costs_are_measured_rising_and_kept(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(widths, "_known", {})
    costs = width_costs(tiny)
    assert costs.contexts == (128, 256)  # the model holds 512 tokens
    for curve in costs.curves:
        assert all(0 < a <= b for a, b in itertools.pairwise(curve.seconds))
    (kept,) = tmp_path.rglob("*.json")
    assert json.loads(kept.read_text())["curves"][1]["seconds"] == list(costs.curves[1].seconds)
    kept.write_text(json.dumps({"contexts": [9], "curves": [{"widths": [1, 2], "seconds": [1.0, 7.0]}]}))
    monkeypatch.setattr(widths, "_known", {})
    assert width_costs(tiny).after(9)(2) == 7.0
    for damaged in ("{", json.dumps({"widths": [1], "seconds": [1.0]})):
        kept.write_text(damaged)
        monkeypatch.setattr(widths, "_known", {})
        assert width_costs(tiny).contexts == (128, 256)


def test_curves_lie_on_lines_between_contexts_and_stay_beyond_them():
    costs = ContextCosts((100, 300), (WidthCosts((1, 2), (1.0, 2.0)), WidthCosts((1, 2), (2.0, 6.0))))
    assert costs.after(0) == costs.after(100) == costs.curves[0] and costs.after(999) == costs.curves[1]
    assert costs.after(150).seconds == (1.25, 3.0)


def test_a_width_is_never_dearer_than_a_larger_one(tiny, monkeypatch):
    clock = iter([0.0, 1.0] * 3 + [v for round_ in range(2) for v in (0, 1, 10, 19, 20, 22)])
    monkeypatch.setattr(widths.time, "perf_counter", lambda: next(clock, 0.0))
    monkeypatch.setattr(widths.Runner, "forward", _without_clock(widths.Runner.forward))
    costs = measure_curve(tiny, 128, (1, 2, 3), rounds=2)
    assert costs.seconds == (1.0, 2.0, 2.0)


def _without_clock(forward):
    """The forward with a clock of its own, so that a scripted one serves the measurement alone."""
    import time as real

    from harness.subjects import runner

    def run(self, *args, **kwargs):
        scripted, runner.time = runner.time, _Still
        try:
            return forward(self, *args, **kwargs)
        finally:
            runner.time = scripted

    class _Still:
        perf_counter = staticmethod(real.monotonic)

    return run
