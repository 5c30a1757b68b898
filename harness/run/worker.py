"""The process that performs the trials of one group: ``python -m harness.run.worker``, spoken to by :mod:`execute`.

It reads one JSON document from standard input, and writes one JSON event a line to the pipe that was its standard
output; whatever a library prints goes to the log instead. When its parent dies, it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from harness.run.process import claim_stdout


def _watch_parent() -> None:
    """End with the parent, however it ended: its side of standard input closes."""

    def wait() -> None:
        while sys.stdin.buffer.read(1):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Perform the group's trials in order, storing each as soon as it is finished."""
    events = claim_stdout()

    def tell(event: str, **fields: Any) -> None:
        events.write(json.dumps({"event": event, **fields}) + "\n")

    job = json.loads(sys.stdin.readline())
    _watch_parent()
    from harness.errors import ZooError

    try:
        _perform(job, tell)
    except ZooError as error:
        tell("fatal", message=str(error), exit_code=error.exit_code)
    events.flush()
    os._exit(0)  # a method's stray threads must not keep the group alive


def _perform(job: dict[str, Any], tell: Any) -> None:
    import torch

    trials = job["trials"]
    torch.set_num_threads(trials[0]["threads"])
    from harness.records.store import RunFolder
    from harness.run.perform import Bench, validate
    from harness.subjects.load import load_subject

    if job["validate"]:
        validate(job["validate"])
    tell("loading")
    first = trials[0]
    bench = Bench(load_subject(first["model"], first["device"], first["dtype"]), first["seed"])
    folder = RunFolder(Path(job["run"]))
    for trial in trials:
        tell("start", trial_id=trial["trial_id"])
        work = folder.scratch()
        with contextlib.ExitStack() as clean:
            clean.callback(shutil.rmtree, work, ignore_errors=True)
            record = bench.perform(trial, work)
            folder.store(record, work)
        tell("done", trial_id=trial["trial_id"], status=record.status, reason=record.reason, seconds=record.seconds)


if __name__ == "__main__":
    main()
