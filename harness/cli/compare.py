"""`zoo compare A B`: two methods, stacks, parameter sets, models or revisions, side by side."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options

if TYPE_CHECKING:
    from harness.gate.lines import Comparison
    from harness.run.lockstep import Place

OTHER = "The second side"


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A method or stack, with parameters.")],
    second: Annotated[str, typer.Argument(metavar="[B]", help="The other; left out: A again.")] = "",
    model: options.Model = options.DEFAULT_MODEL,
    model_b: Annotated[str, typer.Option("--model-b", help="Another model for B.", rich_help_panel=OTHER)] = "",
    revision_a: Annotated[str, typer.Option("--revision-a", help="Git revision of A.", rich_help_panel=OTHER)] = "",
    revision_b: Annotated[str, typer.Option("--revision-b", help="Git revision of B.", rich_help_panel=OTHER)] = "",
    python_b: Annotated[str, typer.Option("--python-b", help="Interpreter of B.", rich_help_panel=OTHER)] = "",
    decode: Annotated[list[str] | None, typer.Option("--decode", help="Decode workloads, e.g. chatx48n6.")] = None,
    workloads: Annotated[bool, typer.Option("--workloads", help="The workloads that both methods have.")] = False,
    tasks: options.Tasks = None,
    limit: options.Limit = None,
    num_fewshot: options.NumFewshot = None,
    batch_size: options.BatchSize = 8,
    include_path: Annotated[
        list[Path] | None, typer.Option("--include_path", help="Folders of your task YAMLs.")
    ] = None,
    energy: Annotated[float, typer.Option("--energy", min=0, help="Seconds of an energy window; 0: none.")] = 0.0,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Torch threads.")] = 1,
    seed: options.Seed = 0,
    json_: options.Json = False,
) -> None:
    """Compare two sides in turns: speed, counts and memory by prompt, quality by document. Ratios are of A to B."""
    from harness.catalog.spec import parse_stack
    from harness.cli.output import print_json, progress
    from harness.errors import UsageError
    from harness.gate.compare import Ask, Side
    from harness.gate.compare import compare as measure
    from harness.run.lockstep import Place
    from harness.run.suite import DecodeSpec

    stacks = parse_stack(first), parse_stack(second or first)
    for stack, revision in zip(stacks, (revision_a, revision_b), strict=True):
        if not revision:
            stack.build()  # finds a wrong parameter before a process starts; a revision may have others
    for workload in options.split_names(decode):
        DecodeSpec.parse(workload)
    one, other = map(str, stacks)
    place = Place(model, device, dtype, threads, seed)
    places = (
        _at(place, revision_a, ""),
        _at(replace(place, model=model_b or model), revision_b, python_b),
    )
    if (one, places[0]) == (other, places[1]):
        raise UsageError("both sides are the same; give another method, --model-b, --revision-b or --python-b")
    names = _names((one, other), (revision_a, revision_b), (model, model_b) if model_b else ("", ""))
    ask = Ask(
        decode=options.split_names(decode) or ([] if tasks or workloads else ["chatx48n6"]),
        tasks=options.split_names(tasks),
        workloads=workloads,
        energy_s=energy,
        options={
            "limit": limit,
            "num_fewshot": num_fewshot,
            "batch_size": batch_size,
            "include_path": [str(p.absolute()) for p in include_path or ()],
            "seed": seed,
        },
    )
    with tempfile.NamedTemporaryFile(prefix="zoo-compare-", suffix=".log", delete=False) as file:
        log = Path(file.name)
    sides = Side(names[0], one, places[0]), Side(names[1], other, places[1])
    found = measure(*sides, ask, log, progress)
    log.unlink(missing_ok=True)
    if json_:
        print_json(asdict(found))
    else:
        show(found)


def _names(methods: tuple[str, str], revisions: tuple[str, str], models: tuple[str, str]) -> list[str]:
    """What the reader calls both sides: the method, with revision and model where these tell them apart."""
    names = [
        " at ".join(filter(None, (method, revision))) + (f" on {model}" if model else "")
        for method, revision, model in zip(methods, revisions, models, strict=True)
    ]
    return names if names[0] != names[1] else [names[0], f"{names[1]} (B)"]


def _at(place: Place, revision: str, python: str) -> Place:
    """The place with a revision's sources and another interpreter, where they are given."""
    from harness.gate.revision import unpack

    source = str(unpack(revision, Path()).folder) if revision else ""
    return replace(place, source=source, python=python or place.python)


def show(found: Comparison) -> None:
    """One table, then one sentence a metric."""
    from harness.cli.output import print_table, print_text

    columns = ("target", "metric", found.first, found.second, "A to B", "low", "high", "n", "noise floor", "verdict")
    rows = [
        [
            line.target,
            line.metric,
            line.first,
            line.second,
            line.value,
            line.low,
            line.high,
            line.n,
            None if line.floor is None else f"{line.floor:.2%}",
            line.verdict,
        ]
        for line in found.lines
    ]
    print_table(columns, rows, f"{found.first} against {found.second}, {found.layout}, {found.machine_label}")
    print_text("")
    equal = [line for line in found.lines if line.source == "count" and line.verdict == "no difference"]
    for line in found.lines:
        if line not in equal:
            print_text(line.sentence)
    if equal:
        print_text(f"equal on both sides: {', '.join(dict.fromkeys(line.metric for line in equal))}")
    if found.noise is None:
        print_text("note: no noise floor is known for this machine (zoo doctor --noise measures it)")
