"""The asking end of stations: two sides take turns, in one process or in two with different sources or interpreters."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import CheckFailed, EnvironmentFailed, Refused, UsageError
from harness.measure.pairs import BASELINE, CANDIDATE, ORDER, Block, Visit, visit_block
from harness.run.process import end, start
from harness.subjects.catalog import MODELS

ERRORS = {error.__name__: error for error in (CheckFailed, UsageError, Refused, EnvironmentFailed)}


Tell = Callable[[str], None]
"""Takes a line about what is going on."""


@dataclass(frozen=True)
class Place:
    """Where one side runs: the model and how it is loaded, an interpreter, and a source tree put before all others."""

    model: str
    device: str = "auto"
    dtype: str | None = None
    threads: int = 1
    seed: int = 0
    source: str = ""
    python: str = sys.executable


class StationProcess:
    """A station in a process of its own. A request that takes longer than ``limit_s`` ends it."""

    def __init__(self, place: Place, log: Path, limit_s: float = 1800.0, cores: Sequence[int] = ()) -> None:
        self.place, self.log, self.limit_s = place, log, limit_s
        variables = {"PYTHONHASHSEED": "0"}
        if place.source:
            variables["PYTHONPATH"] = os.pathsep.join((*source_roots(place.source), os.environ.get("PYTHONPATH", "")))
        command = [interpreter(place.python), "-m", "harness.run.station"]
        self.process = start(command, log, place.threads, variables, place.source or None)
        self.answers: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self.hello = self._load(cores)
        except BaseException:
            self.close()
            raise

    def _load(self, cores: Sequence[int]) -> dict[str, Any]:
        """Load the place's model; a process that runs other sources than the place's is an error."""
        loading = {k: v for k, v in asdict(self.place).items() if k not in ("source", "python")}
        path, source = Path(self.place.model), Path(self.place.source).resolve()
        if self.place.source and path.exists() and self.place.model not in MODELS:
            loading["model"] = str(path.absolute())  # the process works in another folder
        hello: dict[str, Any] = self.ask("load", **loading, cores=list(cores))
        runs = Path(hello["harness"]).resolve()
        if self.place.source and (source / "harness").is_dir() and source not in runs.parents:
            raise EnvironmentFailed(f"the process of {source} runs {runs} instead of its own sources")
        return hello

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(b"")

    def ask(self, do: str, **arguments: Any) -> Any:
        """Send a request and wait for its answer; the other side's errors are raised here."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write((json.dumps({"do": do, "with": arguments}) + "\n").encode())
            self.process.stdin.flush()
            line = self.answers.get(timeout=self.limit_s)
        except queue.Empty:
            self.close()
            raise EnvironmentFailed(f"{do} took longer than the limit of {self.limit_s:.0f} s") from None
        except (BrokenPipeError, ValueError):
            line = b""
        if not line:
            code = self.process.wait()
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise EnvironmentFailed(f"the measuring process ended with {how} during {do}; see {self.log}")
        answer = json.loads(line)
        if "error" in answer:
            raise ERRORS.get(answer.get("class"), EnvironmentFailed)(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        """End the process and all it started."""
        end(self.process)

    def visits(self, side: str, handle: str) -> Visit:
        """Visits of an opened handle, as blocks of the pair engine."""

        def visit(unit: int) -> Block:
            values = self.ask("visit", handle=handle, unit=unit)
            return Block(side, unit, values["total_s"], values["cpu_s"], values)

        return visit


def interpreter(python: str) -> str:
    """An interpreter by name or path, as a path that holds in every folder; one that is not there is refused."""
    found = shutil.which(python)
    if found is None:
        raise UsageError(f"{python!r} cannot be run; give the path of a python interpreter")
    return str(Path(found).absolute())  # not resolved: a virtual environment's interpreter is a link


def source_roots(source: str) -> tuple[str, ...]:
    """The folders of a source tree from which packages are imported; a tree that cannot be asked is refused."""
    root = Path(source).resolve()
    if (root / "harness").is_dir() and not (root / "harness" / "run" / "station.py").is_file():
        raise UsageError(f"the revision at {source} is older than `zoo gate` and cannot be measured in lockstep")
    return tuple(str(folder) for folder in (root, root / "src") if folder.is_dir())


def quiet_cores(threads: int, watch_s: float = 0.2) -> tuple[int, ...]:
    """The ``threads`` cores that others use least just now; empty where a process cannot be bound to cores."""
    import psutil

    if not hasattr(os, "sched_getaffinity"):
        return ()
    usage = dict(enumerate(psutil.cpu_percent(watch_s, percpu=True)))
    allowed = sorted(os.sched_getaffinity(0), key=lambda core: usage.get(core, 0.0))
    return tuple(sorted(allowed[:threads]))


@dataclass
class Fleet:
    """Measuring processes by place and side; one that has died is started anew at the next request.

    All are bound to the same cores. They take turns, so none stands in another's way, and none is slower because its
    core has a busy neighbour: left to the system, equal processes differed by up to a quarter on a loaded machine.
    """

    log: Path
    limit_s: float = 1800.0
    running: dict[tuple[Place, str], StationProcess] = field(default_factory=dict)
    cores: tuple[int, ...] = ()

    def at(self, place: Place, side: str = "") -> StationProcess:
        """The process of a place; different ``side`` names make different processes of one place."""
        key = (place, side)
        if key not in self.running or self.running[key].process.poll() is not None:
            self.cores = self.cores or quiet_cores(place.threads)
            self.running[key] = StationProcess(place, self.log, self.limit_s, self.cores)
        return self.running[key]

    def close(self) -> None:
        """End all processes; those started later choose their cores anew."""
        for station in self.running.values():
            station.close()
        self.running.clear()
        self.cores = ()


@contextlib.contextmanager
def fleet(log: Path, limit_s: float = 1800.0) -> Iterator[Fleet]:
    """A fleet that is gone when the context closes."""
    made = Fleet(log, limit_s)
    try:
        yield made
    finally:
        made.close()


def pair_visits(candidate: StationProcess, baseline: StationProcess) -> dict[str, Visit]:
    """The visits of both sides, each opened under its side's name."""
    return {side: station.visits(side, side) for side, station in ((CANDIDATE, candidate), (BASELINE, baseline))}


@dataclass
class BlockSeries:
    """Blocks of two sides, measured as they are asked for within a budget of seconds."""

    visits: Mapping[str, Visit]
    units: int
    budget_s: float
    seed: int = 0
    blocks: list[list[Block]] = field(default_factory=list)
    spent_s: float = 0.0

    def __post_init__(self) -> None:
        self._coin = random.Random(self.seed)

    def measure_one(self) -> None:
        """One more block: four visits of the next unit."""
        started = time.perf_counter()
        unit = len(self.blocks) % self.units
        self.blocks.append(visit_block(self.visits, unit, self._coin, ORDER))
        self.spent_s += time.perf_counter() - started

    def plan(self) -> int:
        """How many blocks the budget buys, judged by the first one."""
        if not self.blocks:
            self.measure_one()
        return max(1, int(self.budget_s / (self.spent_s / len(self.blocks))))

    def upto(self, n: int) -> Sequence[Sequence[Block]]:
        """The first ``n`` blocks, or fewer where the budget is spent."""
        while len(self.blocks) < n and (not self.blocks or self.spent_s < self.budget_s):
            self.measure_one()
        return self.blocks[:n]


def log_ratio(block: Sequence[Block], clock: str) -> float:
    """Log of the candidate's time over the baseline's, each the smaller of its two visits."""
    best = {side: min(b.result[clock] for b in block if b.side == side) for side in (CANDIDATE, BASELINE)}
    return math.log(best[CANDIDATE] / best[BASELINE])
