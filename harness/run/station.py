"""A process that does what a comparison asks of it, visit by visit: ``python -m harness.run.station``.

It reads one JSON request a line and answers each with one JSON line. What is timed is timed here, so the pipe costs
nothing that is measured. Two stations with different source trees on their path compare two revisions in lockstep.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.run.process import claim_stdout

PROTOCOL = 1
VISIT_S = 0.01
"""A visit of a small operator repeats it until it has lasted this long."""
MAX_REPEATS = 100_000


class Station:
    """A loaded model and the sides opened on it, each under a handle. Public methods are what may be asked."""

    def __init__(self) -> None:
        self.bench: Any = None
        self.sides: dict[str, Callable[[int], dict[str, float]]] = {}
        self.contexts: dict[str, Any] = {}

    def load(
        self, model: str, device: str, dtype: str | None, threads: int, seed: int, cores: list[int]
    ) -> dict[str, Any]:
        """Load a model and say who answers: machine, sources and versions. Work on a CPU is bound to ``cores``."""
        import torch

        import harness
        from harness.measure.machine import machine_key
        from harness.measure.provenance import git_state, versions
        from harness.run.perform import Bench
        from harness.subjects.load import load_subject, pick_device

        torch.set_num_threads(threads)
        key = machine_key()  # before the process is bound: it tells machines apart and not cores
        if cores and pick_device(device).type == "cpu":
            os.sched_setaffinity(0, cores)  # before torch has other threads, which would not be bound
        self.bench = Bench(load_subject(model, device, dtype), seed)
        self.sides, self.contexts = {}, {}
        source = Path(harness.__file__).parent
        state = git_state(source)
        return {
            "protocol": PROTOCOL,
            "weights": self.bench.weights,
            "machine": key.digest,
            "machine_label": key.label,
            "harness": str(source),
            "versions": versions(),
            "git": asdict(state) if state else None,
            "device": str(self.bench.subject.device),
            "dtype": str(self.bench.subject.dtype).removeprefix("torch."),
        }

    def open_decode(self, handle: str, method: str, decode: dict[str, Any]) -> dict[str, Any]:
        """Open a decode workload of a method (none: the bare model) and warm it up; returns its number of units."""
        from harness.catalog.spec import Stack, parse_stack
        from harness.errors import UsageError
        from harness.measure.decode import make_side, row_counts, visit_values
        from harness.measure.pairs import timed
        from harness.run.perform import decode_work, refuse_red

        stack = parse_stack(method) if method else Stack(())
        check_apart(stack)
        refuse_red(stack)
        if decode["forced"]:
            raise UsageError("sides in two processes cannot be forced to one text; leave the f out of the workload")
        work = decode_work(self.bench.subject, decode)
        opened = self.bench.opened(stack)
        side = make_side(opened, work)

        def visit(unit: int) -> dict[str, float]:
            block = timed(side, handle, unit)
            return {**visit_values(block), **row_counts(block.result)}

        self.sides[handle], self.contexts[handle] = visit, (opened, work)
        return {"units": len(work.batches())}

    def open_workload(self, handle: str, method: str, workload: str, reference: bool = False) -> dict[str, Any]:
        """Open one of a method's workloads, or the reference that comes with it, once both are known to agree."""
        from harness.catalog.spec import parse_stack
        from harness.errors import UsageError
        from harness.measure.workload import agreement
        from harness.run.perform import find_workload

        check_apart(parse_stack(method))
        found = find_workload(self.bench.subject, method, workload)
        call = found.make()
        agreement(found, call)
        if reference:
            if found.reference is None:
                raise UsageError(f"workload {workload} of {method} has no reference of its own; name another method")
            call = found.reference()
        self.sides[handle] = _repeated(call, self.bench.subject.device)
        return {"units": 1}

    def visit(self, handle: str, unit: int) -> dict[str, float]:
        """Run a unit once: its clocks in seconds, and its counts."""
        return self.sides[handle](unit)

    def peak_memory(self, handle: str) -> dict[str, float]:
        """Peak memory of one request of an opened decode workload."""
        from harness.measure.decode import memory

        opened, work = self.contexts[handle]
        return {m.metric: m.value for m in memory(opened, work)}

    def energy(self, handle: str, window_s: float) -> list[dict[str, Any]]:
        """Energy figures of an opened decode workload, each with its source."""
        from harness.measure.energy_windows import decode_energy

        opened, work = self.contexts[handle]
        return [asdict(m) for m in decode_energy(opened, work, window_s)]

    def quality(self, method: str, task: str, options: dict[str, Any]) -> list[dict[str, Any]]:
        """Each document's value of each metric of an lm-eval task."""
        from harness.catalog.spec import parse_stack
        from harness.evaluate.quality import EvalOptions, run_task
        from harness.run.perform import documents

        chosen = EvalOptions(**{**options, "include_path": tuple(options.get("include_path", ()))})
        with self.bench.opened(parse_stack(method))() as subject, tempfile.TemporaryDirectory() as work:
            return documents(run_task(subject, task, chosen, Path(work)).samples)

    def workloads(self, method: str) -> list[dict[str, Any]]:
        """Names of a method's workloads, and whether each has a reference of its own."""
        from harness.catalog.spec import parse_stack

        found = [w for m in parse_stack(method).build() for w in m.workloads(self.bench.subject)]
        return [{"name": w.name, "reference": w.reference is not None} for w in found]


def check_apart(stack: Any) -> None:
    """Run invariants that were never run apart: what they allocate would stay in this process."""
    from harness.kinds.checking import known_results

    for spec in stack.specs:
        if known_results(spec) is None:
            command = [sys.executable, "-m", "harness.cli", "check", str(spec)]
            # Its outcome is read from the cache; requests are not its to read.
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)


def _repeated(call: Callable[[], Any], device: Any) -> Callable[[int], dict[str, float]]:
    """A visit that repeats a call often enough to be timed well; the count is found once, after a warm-up."""
    import contextlib
    import time

    from harness.measure.pairs import timed
    from harness.subjects.decode import synchronize

    call()
    synchronize(device)
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < VISIT_S and calls < MAX_REPEATS:
        call()
        synchronize(device)
        calls += 1

    def repeat() -> None:
        for _ in range(calls):
            call()
        synchronize(device)

    def visit(unit: int) -> dict[str, float]:
        block = timed(lambda _: contextlib.nullcontext(repeat), "", unit)
        return {"total_s": block.wall_s / calls, "cpu_s": block.cpu_s / calls}

    return visit


def _requests() -> queue.Queue[str]:
    """Requests as they come. When the asking process has gone, this one ends, whatever it is at."""
    waiting: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            waiting.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    return waiting


def main() -> None:
    """Answer requests until standard input closes."""
    answers = claim_stdout()
    from harness.errors import ZooError

    station, requests = Station(), _requests()
    while True:
        request = json.loads(requests.get())
        try:
            answer = {"ok": getattr(station, request["do"])(**request["with"])}
        except ZooError as error:
            answer = {"error": str(error), "class": type(error).__name__}
        except Exception as error:  # noqa: BLE001 - whatever a method does becomes its trial's failure
            traceback.print_exc()
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
