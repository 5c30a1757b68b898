"""``zoo strata``: where a task is hard, by the words it asks about and by what a tokenizer makes of them."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options
from harness.cli.output import print_json, print_table, print_text, warn
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.evaluate.strata import Strata


def show(found: Strata) -> None:
    """One task's tables."""
    head = f"{found.task}: {found.metric} {found.value:.3f} on {found.n} documents"
    print_text(f"{head}; always giving the most frequent answer: {found.majority:.3f}")
    for title, rows in (("What goes with it (log odds: all others held)", found.influences), ("Strata", found.strata)):
        if rows:
            names = [field.name for field in fields(rows[0])]
            print_table(names, [[getattr(row, name) for name in names] for row in rows], title)


def strata(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A samples_*.jsonl of lm-eval, or a folder of them.")],
    model: options.Model = options.DEFAULT_MODEL,
    method: Annotated[
        str, typer.Option("--method", help="Methods on it, where they change the tokenizer.", rich_help_panel="How")
    ] = "",
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Part logged samples by token lengths, places and counts; correlations beside a regression on all of them.

    Samples come from lm-eval with --log_samples --output_path, or from the folder of a trial.
    """
    from harness.catalog.spec import parse_stack
    from harness.evaluate.strata import read_samples, stratify
    from harness.kinds.artifacts import ArtifactStore
    from harness.kinds.stack import applied
    from harness.subjects.load import load_subject

    methods = parse_stack(method).build() if method else ()
    samples, found = read_samples(path), []
    with applied(methods, load_subject(model, "cpu"), ArtifactStore(seed).obtain) as subject:
        for task, rows in samples.items():
            try:
                found.append(stratify(task, rows, subject.text_tokenizer()))
            except UsageError as error:
                if len(samples) == 1:
                    raise
                warn(str(error))
    if as_json:
        print_json({"model": model, "method": method, "tasks": [asdict(one) for one in found]})
        return
    for one in found:
        show(one)
