"""Measures the noise floor: the same thing against itself, in one process and in two, many times over."""

from __future__ import annotations

import datetime
import math
from collections import defaultdict
from pathlib import Path

from harness.gate.policy import ENERGY, MEMORY
from harness.measure.machine import busy, load_snapshot
from harness.measure.noise import ONE, TWO, NoiseFloor, floor_of, write_noise
from harness.measure.pairs import BASELINE, CANDIDATE
from harness.run.lockstep import BlockSeries, Place, StationProcess, Tell, fleet, log_ratio, pair_visits
from harness.run.suite import DecodeSpec
from harness.stats.paired import MAX_BLOCKS, signed_rank_bounds

WORK = "chatx16n4"
CLOCKS = {"wall": "total_s", "cpu": "cpu_s"}
SIDES = (CANDIDATE, BASELINE)
ENERGY_TURNS = 4


def measure_noise(
    place: Place, log: Path, tell: Tell, repeats: int = 12, budget_s: float = 3.0, energy_s: float = 0.0
) -> NoiseFloor:
    """Compare plain decoding with itself ``repeats`` times in each layout, ``budget_s`` seconds of blocks a time.

    Each comparison opens both sides anew, and in the layout of two processes starts both anew, since where memory
    happens to lie is part of the noise. ``energy_s`` is the length of an energy window; 0 leaves energy out.
    """
    before = load_snapshot()
    ratios: dict[str, dict[str, list[float]]] = {ONE: defaultdict(list), TWO: defaultdict(list)}
    sources: dict[str, str] = {}
    decode = DecodeSpec.parse(WORK).model_dump()
    with fleet(log) as ships:
        first = ships.at(place)
        hello = first.hello
        for turn in range(repeats):
            tell(f"noise in one process, {turn + 1} of {repeats}")
            _compare(first, first, decode, budget_s, turn, ratios[ONE])
            if energy_s and turn < ENERGY_TURNS:
                _energy(first, first, energy_s, ratios[ONE], sources)
    for turn in range(repeats):
        tell(f"noise in two processes, {turn + 1} of {repeats}")
        with fleet(log) as ships:
            both = ships.at(place, "first"), ships.at(place, "second")
            _compare(*both, decode, budget_s, turn, ratios[TWO])
            if energy_s and turn < ENERGY_TURNS:
                _energy(*both, energy_s, ratios[TWO], sources)
    noise = NoiseFloor(
        machine=hello["machine"],
        label=hello["machine_label"],
        model=place.model,
        measured=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        busy=busy(before, load_snapshot()),
        floors={
            layout: {clock: floor_of(values, sources.get(clock, "clock")) for clock, values in clocks.items()}
            for layout, clocks in ratios.items()
        },
    )
    write_noise(noise)
    return noise


def _compare(
    first: StationProcess,
    second: StationProcess,
    decode: dict[str, object],
    budget_s: float,
    seed: int,
    into: dict[str, list[float]],
) -> None:
    """One A/A comparison: the estimate of each clock, and of peak memory."""
    asked = dict(zip(SIDES, (first, second), strict=True))
    for side, station in asked.items():
        units = station.ask("open_decode", handle=side, method="", decode=decode)["units"]
    series = BlockSeries(pair_visits(first, second), units, budget_s, seed)
    blocks = series.upto(MAX_BLOCKS)
    for clock, field in CLOCKS.items():
        into[clock].append(signed_rank_bounds([log_ratio(b, field) for b in blocks], 0.05, 0.05).estimate)
    held = [station.ask("peak_memory", handle=side)[MEMORY] for side, station in asked.items()]
    into["memory"].append(math.log(held[0] / held[1]))


def _energy(
    first: StationProcess,
    second: StationProcess,
    window_s: float,
    into: dict[str, list[float]],
    sources: dict[str, str],
) -> None:
    """One A/A comparison of decode energy; nothing where the meter gives no figure."""
    asked = zip(SIDES, (first, second), strict=True)
    found = [station.ask("energy", handle=side, window_s=window_s) for side, station in asked]
    values = [m for figures in found for m in figures if m["metric"] == ENERGY]
    if len(values) == 2:
        clock = f"energy ({values[0]['source']})"
        into[clock].append(math.log(values[0]["value"] / values[1]["value"]))
        sources[clock] = values[0]["source"]
