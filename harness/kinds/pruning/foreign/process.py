"""The process in kvpress's environment: it is handed the model's weights in a folder and asked through pipes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from transformers.utils import logging

from harness.errors import EnvironmentFailed, Refused
from harness.subjects.subject import Subject

VARIABLE = "ZOO_KVPRESS_PYTHON"
REMEDY = f"make its environment with `ci/peers/make_environment.sh kvpress FOLDER` and set {VARIABLE}=FOLDER/bin/python"

Ask = Callable[..., Any]
"""``ask("score", continuations=[...])``: the worker's answer, or its refusal raised."""


def interpreter() -> str:
    """The Python that kvpress is installed for, from the environment variable; refused where there is none."""
    python = os.environ.get(VARIABLE, "")
    if not python:
        raise Refused(f"kvpress needs an older transformers than the zoo: {REMEDY}")
    if not os.access(python, os.X_OK):
        raise Refused(f"{VARIABLE}={python!r} is no interpreter: {REMEDY}")
    return python


@contextmanager
def opened_worker(subject: Subject, version: str) -> Iterator[Ask]:
    """A worker that holds the subject's weights, in the same type and on the same device; ends with the context.

    Refused where the environment has another ``version`` of kvpress or cannot load the model, and for a subject that
    methods were applied to: what they do beside the weights would be lost.
    """
    if subject.stack:
        raise Refused(f"kvpress takes the bare model to another process; it cannot follow {'+'.join(subject.stack)}")
    python = interpreter()
    with tempfile.TemporaryDirectory(prefix="zoo-kvpress-") as folder, _started(python) as ask:
        _save(subject, folder)
        found = ask(
            "load",
            folder=folder,
            device=str(subject.device),
            dtype=str(subject.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
        )
        # The process has the weights now; what stays for a press to read, its tokenizer, is small.
        for weights in Path(folder).glob("*.safetensors"):
            weights.unlink()
        if found["kvpress"] != version:
            raise Refused(f"kvpress {version} is asked for, its environment has {found['kvpress']}: {REMEDY}")
        yield ask


def _save(subject: Subject, folder: str) -> None:
    logging.disable_progress_bar()
    subject.model.save_pretrained(folder)
    tokenizer = getattr(subject.tokenizer, "inner", None)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


@contextmanager
def _started(python: str) -> Iterator[Ask]:
    # Isolated (-I): neither this process's module path nor the worker's own folder is on the path of the other.
    command = [python, "-I", str(Path(__file__).with_name("worker.py"))]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

        def ask(do: str, **arguments: Any) -> Any:
            answer = _exchanged(process, json.dumps({"do": do, "with": arguments}))
            if answer is None:
                raise EnvironmentFailed(f"kvpress's process ended: {_last_line(log)} ({REMEDY})")
            if "refused" in answer:
                raise Refused(f"kvpress: {answer['refused']}")
            return answer["ok"]

        try:
            yield ask
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):  # what the other end never read cannot be flushed
                    pipe.close()


def _exchanged(process: subprocess.Popen[str], line: str) -> Any:
    """The answer to a request; None where the process has gone."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    answer = process.stdout.readline()
    return json.loads(answer) if answer else None


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
