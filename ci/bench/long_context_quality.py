"""Quality at lengths where reading the prompt is most of the work: one prefill a document serves all methods.

Run `python ci/bench/long_context_quality.py [METHOD ...] [--task NAME ...] [--limit N] [--model NAME]`. Tasks go
through lm-eval as in `zoo run`. Prints each method's accuracy with its 95 % interval, its mean choice margin, and the
difference of the margins from those of `kv_full`, paired by document.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch

from harness.catalog.spec import MethodSpec
from harness.errors import ZooError
from harness.evaluate.quality import EvalOptions, run_task
from harness.kinds.artifacts import ArtifactStore
from harness.kinds.stack import applied
from harness.run.perform import documents
from harness.stats.intervals import Estimate, mean_interval
from harness.stats.quality import paired_difference
from harness.subjects.catalog import DEFAULT_MODEL
from harness.subjects.load import load_subject
from harness.subjects.shared_prefill import SharedScorer

BASELINE = "kv_full"
METHODS = (
    "kv_random@keep_ratio=0.25",
    "kv_duo",
    "kv_oracle_topk@keep_ratio=0.125",
    "hisa@keep_ratio=0.125@page=32@blocks=32",
    "token_select@keep_ratio=0.125",
    "fasa@keep_ratio=0.125",
)
TASKS = ("zoo_ruler_multikey8k_blind", "zoo_ruler_multikey8k")


def document_values(samples: Any, metric: str) -> list[float]:
    """A metric of all documents, in their order."""
    rows = [row for row in documents(samples) if row["name"] == metric]
    return [row["value"] for row in sorted(rows, key=lambda row: int(row["unit"]))]


def shown(figure: Estimate) -> str:
    """A value with its interval."""
    bounds = "" if figure.low is None or figure.high is None else f" [{figure.low:.2f}, {figure.high:.2f}]"
    return f"{figure.value:.2f}{bounds}"


def table(scorer: SharedScorer, task: str, options: EvalOptions, methods: Sequence[str]) -> None:
    """Print one task's rows; the baseline comes first, and the prefills with it."""
    margins: dict[str, list[float]] = {}
    for name in (BASELINE, *methods):
        samples = run_task(scorer.subject(name), task, options).samples
        margins[name] = document_values(samples, "choice_margin")
        gap = shown(paired_difference(margins[name], margins[BASELINE])) if name != BASELINE else ""
        right = shown(mean_interval(document_values(samples, "acc")))
        print(f"{name} | {right} | {sum(margins[name]) / len(margins[name]):.2f} | {gap}", flush=True)


def main() -> None:
    """A table for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--task", nargs="+", default=TASKS)
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    torch.set_num_threads(1)
    options = EvalOptions(limit=args.limit, batch_size=2)
    with ExitStack() as opened:
        subject, store = load_subject(args.model, dtype=args.dtype), ArtifactStore()
        named = {name: [MethodSpec.parse(name).build()] for name in (BASELINE, *args.methods)}
        subjects = {name: opened.enter_context(applied(m, subject, store.obtain)) for name, m in named.items()}
        for task in args.task:
            started = time.perf_counter()
            print(f"{task}, {args.limit} documents\nmethod | acc | choice margin | difference of margins")
            table(SharedScorer(subjects), task, options, args.methods)
            print(f"{time.perf_counter() - started:.0f} s\n", flush=True)


if __name__ == "__main__":
    try:
        main()
    except ZooError as error:
        sys.exit(f"error: {error}")
