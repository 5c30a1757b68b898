"""Runs groups of trials, each in a process of its own with a time and a memory limit; a bad trial becomes a row."""

from __future__ import annotations

import datetime
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness.errors import EnvironmentFailed, UsageError
from harness.records.schema import CRASHED, FAILED, OUT_OF_MEMORY, TIMEOUT, TrialRecord
from harness.records.store import RunFolder
from harness.run.process import end, start

Listener = Callable[[dict[str, Any]], None]
LOADING_LIMIT_S = 1800.0
"""A model may have to be fetched and converted before the first trial starts."""


@dataclass(frozen=True)
class Limits:
    """For each trial: seconds on the wall, and resident gigabytes of the process that performs it."""

    seconds: float
    memory_gb: float


class Group:
    """One group's process. A trial that kills or hangs it is recorded, and the rest goes on in a new process."""

    def __init__(self, folder: RunFolder, trials: list[dict[str, Any]], limits: Limits, log: Path) -> None:
        self.folder = folder
        self.pending = list(trials)
        self.limits = limits
        self.log = log

    def run(self, listen: Listener, validate: list[dict[str, Any]] | None = None) -> None:
        """Perform all trials. Raises :class:`ZooError` where the group cannot even start (model, names)."""
        attempts_without_progress = 0
        while self.pending:
            before = len(self.pending)
            self._one_process(listen, validate or [])
            validate = []
            attempts_without_progress = 0 if len(self.pending) < before else attempts_without_progress + 1
            if attempts_without_progress:
                self._fail_all(listen, f"the process ended before its first trial; see {self.log}")

    def _one_process(self, listen: Listener, validate: list[dict[str, Any]]) -> None:
        process = start([sys.executable, "-m", "harness.run.worker"], self.log, self.pending[0]["threads"])
        try:
            self._converse(process, listen, validate)
        finally:
            end(process)

    def _converse(self, process: subprocess.Popen[bytes], listen: Listener, validate: list[dict[str, Any]]) -> None:
        assert process.stdin is not None
        job = {"run": str(self.folder.path), "trials": self.pending, "validate": validate}
        events = _read_events(process)
        try:
            process.stdin.write((json.dumps(job) + "\n").encode())
            process.stdin.flush()
        except BrokenPipeError:
            return
        current: dict[str, Any] | None = None
        deadline = time.monotonic() + LOADING_LIMIT_S
        while True:
            try:
                event = events.get(timeout=0.25)
            except queue.Empty:
                verdict = self._over_limit(process, deadline)
                if verdict is None:
                    continue
                end(process)
                self._record_lost(current, *verdict, listen)
                return
            if event is None:
                if current is not None:
                    self._record_lost(current, CRASHED, _exit_reason(process), listen)
                return
            if event["event"] == "fatal":
                self._fatal(event, listen)
                return
            if event["event"] == "start":
                deadline = time.monotonic() + self.limits.seconds
                current = next(t for t in self.pending if t["trial_id"] == event["trial_id"])
            elif event["event"] == "done":
                self.pending = [t for t in self.pending if t["trial_id"] != event["trial_id"]]
                current = None
            listen(event)

    def _over_limit(self, process: subprocess.Popen[bytes], deadline: float) -> tuple[str, str] | None:
        if time.monotonic() > deadline:
            return TIMEOUT, f"took longer than the limit of {self.limits.seconds:.0f} s (--trial-limit)"
        try:
            held = psutil.Process(process.pid).memory_info().rss / 1e9
        except psutil.Error:
            return None
        if held > self.limits.memory_gb:
            limit = f"the limit of {self.limits.memory_gb:.1f} GB (--memory-limit)"
            return OUT_OF_MEMORY, f"held {held:.1f} GB, above {limit}"
        return None

    def _record_lost(self, trial: dict[str, Any] | None, status: str, reason: str, listen: Listener) -> None:
        """Store a trial that its process could not store itself."""
        if trial is None:
            self._fail_all(listen, f"{reason} while the model was loading", status)
            return
        now = datetime.datetime.now(datetime.UTC).isoformat()
        self.folder.store(TrialRecord(trial=trial, status=status, reason=reason, started=now))
        self.pending = [t for t in self.pending if t["trial_id"] != trial["trial_id"]]
        listen({"event": "done", "trial_id": trial["trial_id"], "status": status, "reason": reason, "seconds": 0.0})

    def _fail_all(self, listen: Listener, reason: str, status: str = FAILED) -> None:
        for trial in tuple(self.pending):
            self._record_lost(trial, status, reason, listen)

    def _fatal(self, event: dict[str, Any], listen: Listener) -> None:
        """A wrong name ends the run; a model that cannot be loaded fails its own trials only."""
        if event["exit_code"] == UsageError.exit_code:
            raise UsageError(event["message"])
        self._fail_all(listen, event["message"])


def _exit_reason(process: subprocess.Popen[bytes]) -> str:
    code = process.wait()
    if code < 0:
        return f"its process was ended by signal {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


def _read_events(process: subprocess.Popen[bytes]) -> queue.Queue[dict[str, Any] | None]:
    """Events as they come; None when the process has closed its side."""
    events: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                events.put(json.loads(line))
            except ValueError:
                continue  # a native library wrote past our redirection
        events.put(None)

    threading.Thread(target=read, daemon=True).start()
    return events


def run_groups(folder: RunFolder, groups: list[list[dict[str, Any]]], limits: Limits, listen: Listener) -> None:
    """Run all groups one after the other; the first process checks every name of the plan before anything runs."""
    everything = [trial for group in groups for trial in group]
    for number, trials in enumerate(groups):
        group = Group(folder, trials, limits, folder.path / f"worker-{number}.log")
        try:
            group.run(listen, everything if number == 0 else None)
        except OSError as error:
            raise EnvironmentFailed(f"cannot run trials in {folder.path}: {error}") from error
