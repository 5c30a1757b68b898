"""Options that several verbs share, declared once. Names are lm-eval's; ``--batch-size`` is ``--batch_size``.

A verb writes ``model: options.Model = options.DEFAULT_MODEL``; the frame adds the variable ``ZOO_MODEL``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.subjects.catalog import DEFAULT_MODEL

__all__ = ["DEFAULT_MODEL", "split_names"]

WHAT, HOW, RESULT = "What is measured", "How", "Result"

Model = Annotated[
    str, typer.Option("--model", help="Catalog name, hub id, local folder or .gguf file.", rich_help_panel=WHAT)
]
Tasks = Annotated[
    list[str] | None, typer.Option("--tasks", help="lm-eval task names, comma-separated.", rich_help_panel=WHAT)
]
Limit = Annotated[
    float | None,
    typer.Option("--limit", min=0, help="Documents a task (below 1: that part of them).", rich_help_panel=WHAT),
]
NumFewshot = Annotated[
    int | None, typer.Option("--num_fewshot", min=0, help="Examples in the prompt.", rich_help_panel=WHAT)
]
Device = Annotated[
    str, typer.Option("--device", help="cpu, cuda, cuda:1, or auto: the first GPU, else the CPU.", rich_help_panel=HOW)
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="float32, bfloat16 or float16; left out: the model's own.", rich_help_panel=HOW),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.", rich_help_panel=HOW)]
BatchSize = Annotated[int, typer.Option("--batch_size", min=1, help="Rows a forward.", rich_help_panel=HOW)]
OutputPath = Annotated[
    Path | None, typer.Option("--output_path", help="Where results are written.", rich_help_panel=RESULT)
]
LogSamples = Annotated[
    bool, typer.Option("--log_samples/--no_log_samples", help="Keep each document's answer.", rich_help_panel=RESULT)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=RESULT)]


def split_names(given: str | Sequence[str] | None) -> list[str]:
    """The names of a comma-separated list, or of all lists of an option that is given several times."""
    texts = [given] if isinstance(given, str) else given or ()
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]
