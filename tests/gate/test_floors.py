"""The noise floor: a limit that holds as often as it says, kept under its machine, measured in both layouts."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from harness.gate.floors import measure_noise
from harness.measure.noise import ONE, TWO, floor_of, read_noise, write_noise
from harness.run.lockstep import Place

PLACE = Place("tiny-random")
SAMPLES = 1500


def limits(draws):
    return np.array([math.log1p(floor_of(row).value) for row in draws])


def test_the_floor_covers_as_it_says():
    """From 12 A/A ratios: 95 % of further ones lie below the floor in at least 95 % of cases, and not by mere width."""
    draws = np.random.default_rng(3).normal(0, 0.02, (SAMPLES, 12))
    covered = 2 * stats.norm.cdf(limits(draws) / 0.02) - 1
    failures = int((covered < 0.95).sum())
    assert failures <= stats.binom.ppf(0.999, SAMPLES, 0.05)
    assert failures >= stats.binom.ppf(0.001, SAMPLES, 0.03)
    assert np.median(limits(draws)) < 2 * stats.norm.ppf(0.975) * 0.02


def test_more_comparisons_lower_the_floor():
    dice = np.random.default_rng(4)
    few, many = (np.median(limits(dice.normal(0, 0.02, (50, n)))) for n in (4, 100))
    assert many < few


@pytest.mark.parametrize("wild", [0.5, -0.5])
def test_the_floor_is_never_below_the_largest_seen(wild):
    found = floor_of([0.001] * 99 + [wild])
    assert found.value >= math.expm1(0.5) and found.n == 100
    assert (found.low, found.high) == (math.expm1(min(0.001, wild)), math.expm1(max(0.001, wild)))


def test_a_bias_counts_as_noise():
    assert floor_of([0.05] * 12).value > 0.05


def test_no_noise_is_no_floor():
    assert floor_of([0.0] * 4, "count").value == 0.0 and floor_of([0.0] * 4, "count").source == "count"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    return tmp_path


def test_what_is_kept_is_read_again(cache, noise):
    write_noise(noise("m5", wall=0.03, busy="busy machine"))
    assert read_noise("m5") == noise("m5", wall=0.03, busy="busy machine") and read_noise("m6") is None
    write_noise(noise("m5"))
    assert read_noise("m5") == noise("m5")
    assert [p.name for p in (cache / "noise").iterdir()] == ["m5.json"]


@pytest.mark.parametrize("text", ["", "{", "{}", '{"floors": {}}', '{"floors": {"one process": {"wall": {"odd": 1}}}}'])
def test_a_file_that_cannot_be_read_is_no_floor(cache, noise, text):
    write_noise(noise())
    (cache / "noise" / "m1.json").write_text(text)
    assert read_noise("m1") is None


def test_a_cache_that_cannot_be_written_is_borne(cache, noise):
    (cache / "noise").write_text("a file, not a folder")
    write_noise(noise())
    assert read_noise("m1") is None


def test_both_layouts_are_measured_and_kept(world, tmp_path):
    world.machines[""] = "m7"
    told = []
    found = measure_noise(PLACE, tmp_path / "log", told.append, repeats=4, budget_s=1.0)
    assert read_noise("m7") == found and found.machine == "m7" and found.model == "tiny-random"
    for layout in (ONE, TWO):
        assert set(found.floors[layout]) == {"wall", "cpu", "memory"}
        floor = found.of(layout, "wall")
        assert 0 < floor.value < 0.1 and floor.n == 4 and floor.low <= floor.high
    assert world.starts == {PLACE: 1 + 2 * 4}  # two fresh processes for every comparison between processes
    assert len(told) == 8 and found.of(ONE, "energy (model)") is None


def test_a_difference_between_processes_raises_their_floor_alone(world, tmp_path):
    slow = {start: 1.2 if start % 4 == 0 else 1.0 for start in range(20)}
    world.plant("head", "", slow=slow.__getitem__)
    found = measure_noise(PLACE, tmp_path / "log", lambda _: None, repeats=4, budget_s=2.0)
    assert found.of(TWO, "wall").value > 0.15 > 0.05 > found.of(ONE, "wall").value


def test_energy_has_a_floor_in_both_layouts_under_its_source(world, tmp_path):
    world.plant("head", "", joules=[(0.5, "counter")])
    found = measure_noise(PLACE, tmp_path / "log", lambda _: None, repeats=5, budget_s=1.0, energy_s=2.0)
    for layout in (ONE, TWO):
        floor = found.of(layout, "energy (counter)")
        assert (floor.n, floor.source) == (4, "counter")
    assert {a["window_s"] for _, do, a in world.asked if do == "energy"} == {2.0}
    assert json.loads((tmp_path / "cache" / "noise" / "m1.json").read_text())["machine"] == "m1"
