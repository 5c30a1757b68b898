"""`zoo run`: the main job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import (
    BatchSize,
    Device,
    Dtype,
    Json,
    Limit,
    LogSamples,
    NumFewshot,
    OutputPath,
    Seed,
    Tasks,
    split_names,
)

if TYPE_CHECKING:
    from harness.run.session import Plan, Summary
    from harness.run.suite import Suite

DECODE_DEFAULT = "chatx48n6"


def run(
    suite: Annotated[str, typer.Argument(help="A suite's name or a .yaml file; default smoke.")] = "",
    method: Annotated[list[str] | None, typer.Option("--method", "-m", help="Methods instead of a suite.")] = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="Name, hub id, folder or .gguf file.")] = None,
    tasks: Tasks = None,
    decode: Annotated[
        list[str] | None, typer.Option("--decode", help="Decode workloads, e.g. chatx48n6,prose:512x32n4.")
    ] = None,
    workloads: Annotated[bool, typer.Option("--workloads", help="Time the methods' own workloads.")] = False,
    probes: Annotated[bool, typer.Option("--probes", help="Run the methods' probes.")] = False,
    quality_only: Annotated[bool, typer.Option("--quality-only", help="lm-eval tasks only.")] = False,
    cost_only: Annotated[bool, typer.Option("--cost-only", help="Costs only.")] = False,
    limit: Limit = None,
    num_fewshot: NumFewshot = None,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    dtype: Dtype = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Torch threads.")] = 1,
    seed: Seed = 0,
    include_path: Annotated[
        list[Path] | None, typer.Option("--include_path", help="Folders of your task YAMLs.")
    ] = None,
    output_path: OutputPath = None,
    log_samples: LogSamples = True,
    energy: Annotated[bool, typer.Option("--energy", help="Add energy windows to cost trials.")] = False,
    trial_limit: Annotated[float | None, typer.Option("--trial-limit", min=1, help="Seconds a trial may take.")] = None,
    memory_limit: Annotated[float | None, typer.Option("--memory-limit", min=0.1, help="GB a trial may hold.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the trials and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the newest unfinished run.")] = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run also what is recorded already.")] = False,
    json_: Json = False,
) -> None:
    """Run a suite, or methods on models and tasks, into records; then print the leaderboard."""
    from harness.run.plan import Scope
    from harness.run.session import execute_plan, find_unfinished, make_plan, resume_plan
    from harness.run.suite import parse_decode

    results = output_path or Path("results")
    folder = find_unfinished(results) if resume else None
    if folder is not None:
        plan = resume_plan(folder)
    else:
        wanted = {
            "models": model,
            "tasks": split_names(tasks) or None,
            "decode": [parse_decode(text) for text in split_names(decode)] or None,
            "workloads": workloads or None,
            "probes": probes or None,
            "limit": limit,
            "num_fewshot": num_fewshot,
        }
        entry = {name: value for name, value in wanted.items() if value is not None}
        limits = {"trial_limit_s": trial_limit, "memory_limit_gb": memory_limit, "energy": energy or None}
        chosen = _suite_of_methods(method, entry, batch_size) if method else _named_suite(suite, entry)
        scope = Scope(
            quality=not cost_only,
            cost=not quality_only,
            device=device,
            threads=threads,
            seed=seed,
            dtype=dtype,
            include_path=tuple(str(p.absolute()) for p in include_path or ()),
            log_samples=log_samples,
        )
        update = {name: value for name, value in limits.items() if value is not None}
        plan = make_plan(chosen.model_copy(update=update), scope, results, rerun)
    if dry_run:
        _print_plan(plan, json_)
        return
    try:
        summary = execute_plan(plan, results, _Progress(plan, json_), folder)
    except KeyboardInterrupt:
        print("finished trials are safe; `zoo run --resume` goes on", file=sys.stderr)
        raise
    _conclude(summary, plan, results, json_)


def _named_suite(name: str, entry: dict[str, Any]) -> Suite:
    """A suite by name or path; the options given replace those of its entries."""
    from harness.run.suite import load_suite, parse_suite

    loaded = load_suite(name or "smoke").model_dump()
    loaded["entries"] = [{**old, **entry} for old in loaded["entries"]]
    return parse_suite(loaded, name or "smoke")


def _suite_of_methods(methods: list[str], entry: dict[str, Any], batch_size: int) -> Suite:
    """A suite made of options; with nothing to measure named, one decode workload."""
    from harness.run.suite import parse_decode, parse_suite

    if not any(entry.get(name) for name in ("tasks", "decode", "workloads", "probes")):
        entry["decode"] = [parse_decode(DECODE_DEFAULT)]
    made = {"methods": methods, "batch_size": batch_size, **entry}
    return parse_suite({"name": "methods", "entries": [made]}, "of these options")


def _print_plan(plan: Plan, json_: bool) -> None:
    from harness.cli.output import print_json, print_table

    columns = ("trial_id", "kind", "method", "model", "target")
    if json_:
        rows = [{name: trial[name] for name in columns} for trial in plan.trials]
        print_json({"suite": plan.suite.name, "recorded": plan.recorded, "trials": rows})
        return
    title = f"{len(plan.trials)} trials to run, {plan.recorded} recorded already"
    print_table(columns, [[trial[name] for name in columns] for trial in plan.trials], title)


class _Progress:
    """A progress bar on standard error; one line a trial where that is not a terminal."""

    def __init__(self, plan: Plan, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.names = {t["trial_id"]: f"{t['method']} · {t['target']}" for t in plan.trials}
        console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.lines = not console.is_terminal and not quiet
        self.task = self.bar.add_task("starting", total=len(plan.trials))
        self.console = console
        self.bar.start()
        self.finished = 0

    def __call__(self, event: dict[str, Any]) -> None:
        """Show an event of the run."""
        if event["event"] == "loading":
            self.bar.update(self.task, description="loading the model")
            return
        name = self.names.get(event["trial_id"], event["trial_id"])
        if event["event"] == "start":
            self.bar.update(self.task, description=name)
            return
        self.finished += 1
        self.bar.advance(self.task)
        if event["status"] not in ("ok", "as baseline"):
            self.console.print(
                f"{name}: {event['status']}: {event['reason']}", markup=False, highlight=False, soft_wrap=True
            )
        elif self.lines:
            line = f"[{self.finished}/{len(self.names)}] {name}: {event['status']} in {event['seconds']:.1f} s"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        if self.finished == len(self.names):
            self.bar.stop()


def _conclude(summary: Summary, plan: Plan, results: Path, json_: bool) -> None:
    """Print the leaderboard of what the run covers and say where the records lie; fail if nothing was measured."""
    from harness.cli.leaderboard import show
    from harness.errors import EnvironmentFailed

    where = summary.folder or results / "runs"
    bad = {s: n for s, n in summary.statuses.items() if s not in ("ok", "as baseline", "refused")}
    if bad and not summary.statuses["ok"] and not plan.recorded:
        raise EnvironmentFailed(f"nothing was measured: {bad}; the reasons stand above and in {where}")
    show(results, format_="json" if json_ else "table", suite=plan.suite.name)
    print(f"{summary.ran} trials run, {summary.recorded} recorded before; records in {where}", file=sys.stderr)
