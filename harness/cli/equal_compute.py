"""``zoo equal-compute``: which tokenizer or model needs fewer bits a byte for the same training FLOPs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from harness.cli import options
from harness.cli.output import print_json, print_table, print_text, progress
from harness.errors import UsageError

COLUMNS = ("arm", "bits_per_byte", "by seed", "rate", "parameters", "tokens/byte", "steps", "FLOPs", "seconds")


def _rates(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in options.split_names(text))
    except ValueError as error:
        raise UsageError(f"learning rates are numbers with commas, not {text!r}") from error


def equal_compute(
    arms: Annotated[list[str], typer.Argument(help="Stacks that end in an architecture: byte+tiny_llama.")],
    flops: Annotated[float, typer.Option("--flops", help="Training FLOPs of each arm and seed.")],
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each arm.")] = 3,
    learning_rates: Annotated[
        str,
        typer.Option("--learning-rates", help="Tried at a fifth of the budget, with commas; one is taken as it is."),
    ] = "1e-3,2e-3,4e-3",
    window: Annotated[
        int, typer.Option("--window", min=32, help="Bytes of a training row, and of a scoring window.")
    ] = 512,
    test_bytes: Annotated[
        int, typer.Option("--test-bytes", min=1000, help="Text to validate on and to compare on, at most.")
    ] = 100_000,
    corpus: Annotated[str, typer.Option("--corpus", help="Text by name, or a file or folder.")] = "python_docs",
    model: options.Model = options.DEFAULT_MODEL,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    as_json: options.Json = False,
) -> None:
    """Train every arm at the same FLOPs and compare bits per byte over test documents, in pairs.

    Trainings are kept, so a run that was stopped goes on. The model gives tokenizer, device and type alone.
    """
    from harness.run.equal_compute import Terms, contest
    from harness.subjects.load import load_subject

    terms = Terms(
        flops=flops, seeds=seeds, rates=_rates(learning_rates), window=window, corpus=corpus, test_bytes=test_bytes
    )
    found, findings = contest(arms, load_subject(model, device, dtype), terms, progress)
    total = sum(len(text.encode()) for text in terms.texts("test"))
    rows: list[list[Any]] = []
    for arm in found:
        by_seed = [sum(run.bits) / total for run in arm.runs]
        shown = ", ".join(f"{value:.4f}" for value in by_seed)
        rows.append(
            [arm.name, sum(by_seed) / len(by_seed), shown, arm.rate, arm.runs[0].parameters, arm.tokens_per_byte]
        )
        rows[-1] += [
            sum(getattr(run, name) for run in arm.runs) / len(arm.runs) for name in ("steps", "flops", "seconds")
        ]
    if as_json:
        lines = [asdict(finding) | {"found": finding.found} for finding in findings]
        print_json({"arms": [dict(zip(COLUMNS, row, strict=True)) for row in rows], "findings": lines})
        return
    print_table(COLUMNS, rows)
    for finding in findings:
        print_text(finding.line())
