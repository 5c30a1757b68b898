"""Two sides side by side: quality paired by document, cost paired by block, one row and one plain sentence a metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import EnvironmentFailed, UsageError, ZooError
from harness.gate.finding import FAILED
from harness.gate.judge import paired_documents
from harness.gate.lines import Comparison, Documents, Line, clock_line, count_line, plain_line, quality_lines
from harness.gate.policy import COUNTS, MEMORY, WORKLOAD_CLOCKS
from harness.measure.decode import SPEEDUPS
from harness.measure.noise import ONE, TWO, read_noise
from harness.measure.pairs import BASELINE, CANDIDATE, PairRun
from harness.run.lockstep import BlockSeries, Place, StationProcess, Tell, fleet, pair_visits
from harness.run.suite import DecodeSpec

WORKLOAD_BLOCKS = 16


@dataclass(frozen=True)
class Side:
    """One side: a method stack at a place, and what the reader calls it."""

    name: str
    method: str
    place: Place


@dataclass(frozen=True)
class Ask:
    """What is compared: decode workloads and tasks as they are written, and the methods' common workloads."""

    decode: Sequence[str] = ()
    tasks: Sequence[str] = ()
    workloads: bool = False
    energy_s: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)


def compare(first: Side, second: Side, ask: Ask, log: Path, tell: Tell) -> Comparison:
    """Measure both sides in turns. They share a process where they share a place."""
    with fleet(log) as ships:
        one, other = ships.at(first.place), ships.at(second.place)
        hello = one.hello
        layout = ONE if one is other else TWO
        noise = read_noise(hello["machine"])
        found = Comparison(first.name, second.name, hello["machine"], hello["machine_label"], layout, noise)
        for text in ask.decode:
            with _kept_apart(text, found, tell):
                found.lines += _decode(one, other, first, second, text, found, ask)
        if ask.workloads:
            with _kept_apart("workloads", found, tell):
                found.lines += _workloads(one, other, first, second, found, tell)
        quality: list[Documents] = []
        for task in ask.tasks:
            with _kept_apart(task, found, tell):
                quality += _documents(one, other, first, second, task, ask.options)
        found.lines += quality_lines(quality, first.name, second.name)
    if all(line.verdict == FAILED for line in found.lines):
        raise EnvironmentFailed("; ".join(line.sentence for line in found.lines) or "nothing was compared")
    return found


@contextmanager
def _kept_apart(target: str, found: Comparison, tell: Tell) -> Iterator[None]:
    """What fails on one target becomes its line; the others are not lost."""
    tell(target)
    try:
        yield
    except ZooError as error:
        found.lines.append(Line(target=target, metric="", verdict=FAILED, sentence=f"{target} failed: {error}"))


def _decode(
    one: StationProcess, other: StationProcess, first: Side, second: Side, text: str, about: Comparison, ask: Ask
) -> list[Line]:
    spec = DecodeSpec.parse(text).model_dump()
    units = one.ask("open_decode", handle=CANDIDATE, method=first.method, decode=spec)["units"]
    other.ask("open_decode", handle=BASELINE, method=second.method, decode=spec)
    run = _pairs(one, other, units, units)
    lines = [clock_line(text, name, run, clock, about) for name, clock in SPEEDUPS.items()]
    lines += [line for name in COUNTS if (line := count_line(text, name, run, about)) is not None]
    held = [station.ask("peak_memory", handle=h)[MEMORY] for station, h in ((one, CANDIDATE), (other, BASELINE))]
    lines.append(plain_line(text, MEMORY, held[0], held[1], about, "count"))
    if ask.energy_s:
        lines += _energy_lines(text, one, other, about, ask.energy_s)
    return lines


def _pairs(one: StationProcess, other: StationProcess, units: int, blocks: int) -> PairRun:
    series = BlockSeries(pair_visits(one, other), units, math.inf)
    return PairRun([visit for block in series.upto(blocks) for visit in block])


def _workloads(
    one: StationProcess, other: StationProcess, first: Side, second: Side, about: Comparison, tell: Tell
) -> list[Line]:
    names = [w["name"] for w in one.ask("workloads", method=first.method)]
    theirs = {w["name"] for w in other.ask("workloads", method=second.method)}
    common = [name for name in names if name in theirs]
    if not common:
        raise UsageError(f"{first.name} and {second.name} have no workload in common; give --decode or --tasks")
    lines = []
    for name in common:
        tell(f"workload {name}")
        one.ask("open_workload", handle=CANDIDATE, method=first.method, workload=name)
        other.ask("open_workload", handle=BASELINE, method=second.method, workload=name)
        run = _pairs(one, other, WORKLOAD_BLOCKS, WORKLOAD_BLOCKS)
        lines += [clock_line(name, m, run, clock, about) for m, clock in WORKLOAD_CLOCKS.items()]
    return lines


def _energy_lines(
    target: str, one: StationProcess, other: StationProcess, about: Comparison, window_s: float
) -> list[Line]:
    found = [
        {m["metric"]: m for m in station.ask("energy", handle=handle, window_s=window_s)}
        for station, handle in ((one, CANDIDATE), (other, BASELINE))
    ]
    return [
        plain_line(target, name, found[0][name]["value"], found[1][name]["value"], about, found[0][name]["source"])
        for name in found[0]
        if name in found[1]
    ]


def _documents(
    one: StationProcess, other: StationProcess, first: Side, second: Side, task: str, options: Mapping[str, Any]
) -> list[Documents]:
    """For each metric of a task the values of both sides on the documents that both answered."""
    answers = [
        station.ask("quality", method=side.method, task=task, options=dict(options))
        for station, side in ((one, first), (other, second))
    ]
    found = []
    for name in dict.fromkeys(row["name"] for row in answers[0]):
        one_values, other_values = paired_documents(answers[0], answers[1], name)
        if one_values:
            found.append((task, name, one_values, other_values))
    return found
