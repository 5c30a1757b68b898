"""Runs lm-eval tasks on a subject, keeps lm-eval's own files untouched and reads its figures."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import EnvironmentFailed, UsageError, unknown_name
from harness.evaluate.lm import ZooLM
from harness.kinds.method import Measurement
from harness.subjects.subject import Subject

NEEDS = {
    "loglikelihood": "score",
    "loglikelihood_rolling": "score",
    "multiple_choice": "score",
    "generate_until": "generate",
}
"""What each lm-eval output type asks of a subject."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """lm-eval's options, under its names."""

    limit: float | None = None
    num_fewshot: int | None = None
    batch_size: int = 8
    seed: int = 0
    apply_chat_template: bool = False
    log_samples: bool = True
    gen_kwargs: str | None = None
    include_path: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskResult:
    """Figures of one task (or of each task of a group), and where lm-eval's files lie."""

    measurements: list[Measurement]
    samples: dict[str, list[dict[str, Any]]]


def task_manager(include_path: Sequence[str] = (), tasks: Sequence[str] = ()) -> Any:
    """lm-eval's index of tasks: ours, the user's folders, and lm-eval's own only where one is asked for.

    Reading lm-eval's thousands of files takes seconds, so they are left out while every name is known without them.
    """
    from lm_eval.tasks import TaskManager

    import tasks as zoo_tasks

    folders = [str(zoo_tasks.include_path()), *include_path]
    for folder in include_path:
        if not Path(folder).is_dir():
            raise UsageError(f"--include_path {folder!r} is not a folder")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        manager = TaskManager(include_path=folders, include_defaults=False)
        if not all(name in manager.all_tasks for name in tasks):
            manager = TaskManager(include_path=folders)
    except Exception as error:
        raise UsageError(f"a task file under {', '.join(folders)} cannot be read: {_line(error)}") from error
    for name in tasks:
        if name not in manager.all_tasks:
            raise unknown_name("task", name, manager.all_tasks, "zoo list tasks; --include_path adds your own")
    return manager


@lru_cache(maxsize=1)
def describe_environment_once() -> None:
    """Let torch's description of the environment, which lm-eval asks for and which runs pip, be made once a process."""
    from torch.utils import collect_env

    described = collect_env.get_pretty_env_info()  # type: ignore[no-untyped-call]
    collect_env.get_pretty_env_info = lambda: described


@lru_cache(maxsize=32)
def load_task(task: str, options: EvalOptions) -> tuple[tuple[Any, ...], frozenset[str]]:
    """lm-eval's objects of a task or group, and what they ask of a subject (``score``, ``generate``).

    Kept for the other methods of a run: making the documents of a task can cost more than scoring them. lm-eval
    changes a task by the options it is given, so they are part of the key.
    """
    manager = task_manager(options.include_path, [task])
    try:
        loaded = manager.load([task])
    except (ConnectionError, FileNotFoundError) as error:
        raise EnvironmentFailed(f"the data of task {task!r} cannot be had here: {_line(error)}") from error
    named = loaded["groups"].get(task)
    needs = {NEEDS.get(one.OUTPUT_TYPE, "generate") for one in loaded["tasks"].values()}
    return ((named,) if named is not None else tuple(loaded["tasks"].values())), frozenset(needs)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def run_task(subject: Subject, task: str, options: EvalOptions, output: Path | None = None) -> TaskResult:
    """Evaluate one lm-eval task or group. ``output``: folder for lm-eval's results JSON and samples.

    Raises :class:`EnvironmentFailed` where the task's data cannot be had.
    """
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    describe_environment_once()
    objects, _ = load_task(task, options)
    tracker = EvaluationTracker(output_path=str(output)) if output else None
    lm = ZooLM(subject=subject, batch_size=options.batch_size, seed=options.seed)
    with contextlib.redirect_stdout(io.StringIO()):
        results = simple_evaluate(
            model=lm,
            model_args={"pretrained": subject.name, "method": "+".join(subject.stack)},
            tasks=list(objects),
            num_fewshot=options.num_fewshot,
            batch_size=options.batch_size,
            limit=options.limit,
            log_samples=True,
            bootstrap_iters=1000,
            evaluation_tracker=tracker,
            apply_chat_template=options.apply_chat_template,
            gen_kwargs=options.gen_kwargs,
            task_manager=task_manager(options.include_path),
            random_seed=options.seed,
            numpy_random_seed=options.seed,
            torch_random_seed=options.seed,
            fewshot_random_seed=options.seed,
        )
    if results is None:
        raise EnvironmentFailed(f"task {task!r} gave no result")
    samples = results.pop("samples", None) or {}
    if tracker is not None:
        tracker.save_results_aggregated(results=results, samples=samples if options.log_samples else None)
        if options.log_samples:
            for name, rows in samples.items():
                tracker.save_results_samples(task_name=name, samples=rows)
    return TaskResult(read_results(results), samples)


def read_results(results: dict[str, Any]) -> list[Measurement]:
    """lm-eval's figures as measurements, each with its 95 % interval (normal, from lm-eval's standard error)."""
    found = []
    for task, figures in results["results"].items():
        counted = results.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in figures.items():
            metric, comma, _ = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            error = figures.get(key.replace(metric, f"{metric}_stderr", 1))
            half = 1.96 * float(error) if isinstance(error, (int, float)) and math.isfinite(error) else None
            number = float(value)
            low, high = (number - half, number + half) if half is not None else (None, None)
            found.append(Measurement(metric, number, low, high, counted, phase=task, source="lm-eval"))
    return found
