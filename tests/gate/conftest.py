"""A world of fake measuring processes: visits take planted times on a fake clock, and no process is started."""

import inspect
import math
import random
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import EnvironmentFailed, UsageError
from harness.gate import compare, floors, judge, run, stored
from harness.measure.noise import ONE, TWO, Floor, NoiseFloor, write_noise
from harness.run import lockstep
from harness.run.lockstep import StationProcess
from harness.run.station import Station

COUNTS = {
    "forwards": 16.0,
    "mean_accepted_tokens": 1.0,
    "tokens_forwarded_per_token": 1.0,
    "kv_kept_fraction": 1.0,
    "kv_bytes_held": 4096.0,
    "kv_bytes_allocated": 8192.0,
}


@dataclass
class Planted:
    """What a method does in one source tree. ``slow`` multiplies its times: a number, or by start of its process."""

    slow: Any = 1.0
    counts: dict[str, float] = field(default_factory=lambda: dict(COUNTS))
    memory: float = 1e8
    joules: list[tuple[float, str]] = field(default_factory=lambda: [(0.5, "model")])
    documents: dict[str, list[float]] = field(default_factory=lambda: {"exact_match": [1.0, 0.0] * 50})
    fails: dict[str, Exception] = field(default_factory=dict)
    workloads: tuple[str, ...] = ("attention",)


class FakeStation:
    """Answers as :class:`StationProcess` does, and takes only what a real station takes."""

    visits = StationProcess.visits

    def __init__(self, world, place):
        self.world, self.place, self.alive = world, place, True
        self.start = world.starts[place] = world.starts.get(place, 0) + 1
        self.opened = {}
        self.hello = {
            "machine": world.machines.get(place.source, "m1"),
            "machine_label": "a CPU",
            "versions": {"torch": "2"},
            "git": None,
            "device": "cpu",
            "dtype": "float32",
        }

    def ask(self, do, **arguments):
        inspect.signature(getattr(Station, do)).bind(None, **arguments)
        self.world.asked.append((self.place.source or "head", do, arguments))
        if not self.alive:
            raise EnvironmentFailed(f"the measuring process ended with exit code 1 during {do}")
        method = arguments.get("method", self.opened.get(arguments.get("handle"), (None,))[0])
        planted = self.world.planted(self.place.source, method)
        if do in planted.fails:
            error = planted.fails[do]
            self.alive = not isinstance(error, EnvironmentFailed)
            raise error
        return getattr(self, f"_{do}")(planted, **arguments)

    def _open_decode(self, planted, handle, method, decode):
        self.opened[handle] = (method, False)
        return {"units": decode["count"]}

    def _open_workload(self, planted, handle, method, workload, reference=False):
        if workload not in planted.workloads:
            raise UsageError(f"unknown workload {workload!r}")
        self.opened[handle] = (method, reference)
        return {"units": 1}

    def _visit(self, planted, handle, unit):
        slow = planted.slow(self.start) if callable(planted.slow) else planted.slow
        slow = 1.0 if self.opened[handle][1] else slow
        noise = math.exp(self.world.dice.gauss(0, self.world.noise))
        seconds = self.world.visit_s * (1 + unit / 10) * slow * noise
        self.world.clock_s += seconds
        clocks = {"total_s": seconds, "cpu_s": seconds, "ttft_s": seconds / 4, "decode_s": seconds * 3 / 4}
        return {**clocks, **{name: value * (1 + unit) for name, value in planted.counts.items()}}

    def _peak_memory(self, planted, handle):
        return {"peak_memory_bytes": planted.memory * (1 + abs(self.world.dice.gauss(0, 0.001)))}

    def _energy(self, planted, handle, window_s):
        return [{"metric": "energy_per_token_decode", "value": v, "source": s} for v, s in planted.joules]

    def _quality(self, planted, method, task, options):
        return [
            {"side": "document", "unit": unit, "name": name, "value": value}
            for name, values in planted.documents.items()
            for unit, value in enumerate(values)
        ]

    def _workloads(self, planted, method):
        return [{"name": name, "reference": True} for name in planted.workloads]


class FakeFleet:
    """Processes by place and side; one that died is started anew, as the real fleet does."""

    def __init__(self, world, log):
        self.world, self.log, self.running = world, log, {}

    def at(self, place, side=""):
        if (place, side) not in self.running or not self.running[place, side].alive:
            self.running[place, side] = FakeStation(self.world, place)
        return self.running[place, side]

    def close(self):
        self.running.clear()


@dataclass
class World:
    """Plant behaviour with ``world.plant("head", "ar", slow=1.2)``; what is not planted is equal on all sides."""

    visit_s: float = 0.05
    noise: float = 0.02
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    clock_s: float = 0.0
    sides: dict[tuple[str, str], Planted] = field(default_factory=dict)
    machines: dict[str, str] = field(default_factory=dict)
    starts: dict[Any, int] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def plant(self, source, method, **what):
        self.sides[source.replace("head", ""), method] = Planted(**what)

    def planted(self, source, method):
        return self.sides.get((source, method), Planted())

    def station(self, place):
        return FakeStation(self, place)

    def count(self, do, source=""):
        """How often something was asked, of one source tree or of all."""
        return sum(d == do and (not source or s == source) for s, d, _ in self.asked)


def make_noise(machine="m1", wall=0.01, cpu=0.01, memory=0.02, busy=None, **more):
    """A noise floor with the same figures in both layouts."""
    values = {"wall": wall, "cpu": cpu, "memory": memory, **more}
    layout = {clock: Floor(value, -value, value, 12) for clock, value in values.items()}
    return NoiseFloor(machine, "a CPU", "tiny-random", "2026-01-01", busy, {ONE: layout, TWO: layout})


@pytest.fixture
def noise():
    """Makes a noise floor."""
    return make_noise


@pytest.fixture
def world(monkeypatch, tmp_path):
    """A fake world with a known noise floor, in which every fleet is fake."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    made = World()

    @contextmanager
    def fake_fleet(log, limit_s=0.0):
        yield FakeFleet(made, log)

    for module in (run, stored, compare, floors):
        monkeypatch.setattr(module, "fleet", fake_fleet)
    monkeypatch.setattr(lockstep, "time", SimpleNamespace(perf_counter=lambda: made.clock_s))
    monkeypatch.setattr(judge, "secrets", SimpleNamespace(randbits=lambda _: 7))  # the coin of the blocks
    write_noise(make_noise())
    return made
