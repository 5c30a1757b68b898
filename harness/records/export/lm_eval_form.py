"""lm-eval's results form, as its EvaluationTracker writes it: one document a model and method.

Every quality trial keeps what lm-eval wrote for its task. Those of one model, method and setting are merged: what is
listed by task is united, the rest is that of the newest. Two settings of a method (few-shot examples, seed) stay two
documents, since the form has one ``config``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from harness.errors import EnvironmentFailed
from harness.records.export.selection import Document, Records, Row, labels

BY_TASK = (
    "results",
    "groups",
    "group_subtasks",
    "configs",
    "versions",
    "n-shot",
    "higher_is_better",
    "n-samples",
    "task_hashes",
)
"""Entries of lm-eval's form that have one item a task or group."""


def documents(records: Records) -> list[Document]:
    """A document a model and method, named as lm-eval names it: ``<model>/results_<date>.json``.

    The model's name carries the method, since programs that read lm-eval's folders tell models apart by it. Raises
    :class:`EnvironmentFailed` without a finished quality trial, and where none kept lm-eval's file.
    """
    trials = records.finished("quality")
    named = labels(trials, ("method", "model"))
    kept: dict[tuple[str, str, str], list[Path]] = defaultdict(list)
    missing = []
    for trial in trials:
        files = sorted((records.folder(trial) / "lm-eval").rglob("results_*.json"), key=lambda file: file.name)
        if files:
            kept[trial["model"], trial["method"], named[trial["trial_id"]]].append(files[-1])
        else:
            missing.append(f"{trial['method']} on {trial['target']}")
    if not kept:
        raise EnvironmentFailed(
            f"none of the {len(trials)} finished quality trials under {records.results} has lm-eval's results file"
            " (committed reference runs leave them out); run them again with `zoo run --quality-only --rerun`"
        )
    if missing:
        records.notes.append(f"lm-eval's results file is not kept and so left out: {', '.join(missing)}")
    return [_document(*key, files) for key, files in kept.items()]


def _document(model: str, method: str, label: str, files: list[Path]) -> Document:
    from lm_eval.utils import sanitize_model_name

    files = sorted(files, key=lambda file: file.name)
    merged = merge([_read(file) for file in files])
    name = f"{model}+{method}" + (f",{label}" if label else "")
    folder = sanitize_model_name(name)
    merged["config"]["model_args"] = {**merged["config"]["model_args"], "method": method}
    merged.update(model_name=name, model_name_sanitized=folder)
    return Document(f"{folder}/{files[-1].name}", json.dumps(merged, indent=2, ensure_ascii=False))


def merge(parts: list[Row]) -> Row:
    """lm-eval's documents of several tasks as one; the last is the newest, and its run time becomes that of all."""
    merged = dict(parts[-1])
    for name in BY_TASK:
        if any(name in part for part in parts):
            merged[name] = {task: item for part in parts for task, item in (part.get(name) or {}).items()}
    seconds = [
        float(part["total_evaluation_time_seconds"]) for part in parts if "total_evaluation_time_seconds" in part
    ]
    if len(seconds) == len(parts):
        merged["total_evaluation_time_seconds"] = str(sum(seconds))
    return merged


def _read(file: Path) -> Row:
    try:
        document: Row = json.loads(file.read_text(encoding="utf-8"))
        if not {"results", "config"} <= set(document):
            raise ValueError("it has no results or no config")
    except (OSError, ValueError) as error:
        raise EnvironmentFailed(f"{file} is not lm-eval's results file: {error}; run its trial again") from error
    return document
