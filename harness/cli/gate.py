"""`zoo gate`: regression, pass or inconclusive, against a base revision, a rival method or a stored run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli import options

if TYPE_CHECKING:
    from harness.gate.finding import Report

SIDE = "The other side"


def gate(
    policy: Annotated[Path, typer.Option("--policy", help="The policy, a TOML file.")] = Path("ci/gate.toml"),
    base: Annotated[
        str, typer.Option("--base", help="Git revision of the baseline, live in this job.", rich_help_panel=SIDE)
    ] = "HEAD",
    repository: Annotated[
        Path, typer.Option("--repository", help="Where the base revision is looked up.", rich_help_panel=SIDE)
    ] = Path(),
    base_python: Annotated[
        str,
        typer.Option("--base-python", help="Interpreter of the base; left out: this one.", rich_help_panel=SIDE),
    ] = "",
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="A stored run instead of a live base.", rich_help_panel=SIDE),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take a reference of another machine.", rich_help_panel=SIDE)
    ] = False,
    device: options.Device = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Inconclusive exits with 3.")] = False,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write a pull-request comment.")] = None,
    annotations: Annotated[
        bool, typer.Option("--annotations", help="Print GitHub annotations; on by itself in GitHub Actions.")
    ] = False,
    output_path: options.OutputPath = None,
    json_: options.Json = False,
) -> int:
    """Compare this checkout with a base revision under a policy, both sides taking turns in this job.

    Regression (exit 1) where the lower bound of the slow-down lies above this machine's noise floor, pass (0) where the
    upper bound lies below the margin, else inconclusive (0, with --strict 3). 4: a trial or everything failed.
    """
    from harness.cli.output import print_json, print_text, progress
    from harness.gate.policy import load_policy
    from harness.gate.reports import annotations as annotate
    from harness.gate.reports import as_document
    from harness.gate.reports import junit as junit_text
    from harness.gate.reports import markdown as markdown_text
    from harness.gate.session import Request, hold_gate

    request = Request(
        policy=load_policy(policy),
        base=base,
        repository=repository,
        base_python=base_python or sys.executable,
        reference=reference,
        force=force,
        device=device,
        results=output_path or Path("results"),
    )
    report = hold_gate(request, progress)
    report.reproduce = _again(policy, reference, report)
    if json_:
        print_json(as_document(report))
    else:
        show(report)
    if (annotations or "GITHUB_ACTIONS" in os.environ) and (lines := annotate(report)):
        (progress if json_ else print_text)(lines.rstrip())  # GitHub reads both streams; JSON stays one document
    if junit is not None:
        _write(junit, junit_text(report))
    if markdown is not None:
        _write(markdown, markdown_text(report))
    if os.environ.get("GITHUB_STEP_SUMMARY"):
        _write(Path(os.environ["GITHUB_STEP_SUMMARY"]), markdown_text(report), "a")
    return report.exit_code(strict)


def show(report: Report) -> None:
    """The findings as a table, the worst first, then what they rest on."""
    from harness.cli.output import print_table, print_text
    from harness.gate.finding import ordered

    rows = [
        [f.outcome, f.trial, f.sentence, _percent(f.margin), _percent(f.floor), f.n] for f in ordered(report.findings)
    ]
    print_table(("verdict", "trial", "finding", "margin", "floor", "n"), rows, f"gate: {report.outcome}")
    rates = report.policy
    print_text(
        f"\n{report.candidate} against {report.baseline} on {report.machine_label}, {report.seconds:.0f} s\n"
        f"chance that equal sides alarm: at most {rates['false_alarm']:.2g} for the whole gate; that one slow-down of "
        f"the margin passes: at most {rates['false_pass']:.2g}"
    )
    for line in report.warnings:
        print_text(f"note: {line}")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _again(policy: Path, reference: Path | None, report: Report) -> str:
    """The command that runs this gate once more; trials that name their rivals have no base."""
    rivals = all(trial["against"] for trial in report.policy["trial"])
    side = f" --reference {reference}" if reference else "" if rivals else f" --base {report.baseline}"
    return f"zoo gate --policy {policy}{side}"


def _write(path: Path, text: str, mode: Literal["w", "a"] = "w") -> None:
    from harness.errors import EnvironmentFailed

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise EnvironmentFailed(f"cannot write {path}: {error.strerror}") from error
