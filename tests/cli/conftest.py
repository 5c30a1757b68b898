"""Ways to call the command line: in this process, and as a process of its own."""

import json
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from harness.cli import app


@pytest.fixture
def zoo(capsys, monkeypatch, tmp_path):
    """``zoo("list", "--json")`` gives the exit code, stdout and stderr."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZOO_DEBUG", "")

    def call(*arguments):
        try:
            code = app.run(arguments)
        except SystemExit as leave:
            code = leave.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def verb(monkeypatch):
    """Adds a verb ``probe`` whose function is given."""

    def add(function):
        module = ModuleType("harness.cli.probe_verb")
        module.probe = function
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(app.VERBS, "probe", app.Verb("A test's verb.", "Around", "probe_verb", "probe"))

    return add


@pytest.fixture
def process():
    """Runs Python code that has ``run`` of the command line, with arguments, in a process of its own."""

    def call(code, *arguments, **environment):
        lines = f"import sys\nfrom harness.cli.app import main, run\n{code}"
        command = [sys.executable, "-c", lines, *arguments]
        settings = {**os.environ, **environment}
        return subprocess.run(command, capture_output=True, text=True, env=settings, timeout=120)

    return call


@pytest.fixture
def stations_here(monkeypatch):
    """Measuring processes that are objects of this process, with methods whose invariants are known to hold.

    Returns the class; its list ``made`` has every station that was started.
    """
    from harness.kinds.checking import CheckResult
    from harness.run import lockstep, perform, station

    class StationHere:
        made = []
        visits = lockstep.StationProcess.visits

        def __init__(self, place, log, limit_s=0.0, cores=()):
            self.place, self.log, self.station = place, log, station.Station()
            self.process = SimpleNamespace(poll=lambda: None)
            self.hello = self.ask("load", **{k: getattr(place, k) for k in LOADING}, cores=[])
            self.made.append(self)

        def ask(self, do, **arguments):
            return json.loads(json.dumps(getattr(self.station, do)(**json.loads(json.dumps(arguments)))))

        def close(self):
            self.station = None

    monkeypatch.setattr(lockstep, "StationProcess", StationHere)
    monkeypatch.setattr(station, "check_apart", lambda stack: None)
    monkeypatch.setattr(perform, "check_cached", lambda spec: [CheckResult("a", "passed")])
    return StationHere


LOADING = ("model", "device", "dtype", "threads", "seed")


@pytest.fixture
def noise_known(zoo):
    """This machine has a noise floor, in the cache of the test; gives a function that sets it."""
    from harness.measure.machine import machine_key
    from harness.measure.noise import ONE, TWO, Floor, NoiseFloor, write_noise

    key = machine_key()

    def know(value=0.01):
        floors = {clock: Floor(value, -value, value, 12) for clock in ("wall", "cpu", "memory")}
        noise = NoiseFloor(key.digest, key.label, "tiny-random", "2026-01-01", None, {ONE: floors, TWO: floors})
        write_noise(noise)
        return noise

    return know
