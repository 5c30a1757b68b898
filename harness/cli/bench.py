"""`zoo bench`: micro-benchmarks of the methods' own workloads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.options import Json

COMMON = {"cpu_share", "speedup", "call_p50", "error_rms", "memory_ratio", "peak_memory_bytes"}
COMMON |= {"tokens_per_s", "mb_per_s", "flops_per_s"}
"""What every workload may have; the rest is counted by the workload itself."""


def bench(
    methods: Annotated[
        list[str] | None, typer.Argument(help="Methods with parameters; none: all that have workloads.")
    ] = None,
    kind: Annotated[str, typer.Option("--kind", help="Only methods of this kind.")] = "",
    model: Annotated[str, typer.Option("--model", help="Model instead of each method's own.")] = "",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Torch threads.")] = 1,
    benchmark_json: Annotated[
        Path | None, typer.Option("--benchmark-json", help="Keep pytest-benchmark's file.")
    ] = None,
    json_: Json = False,
) -> None:
    """Time operators, updates and encoders against their references, in pairs and by pytest-benchmark."""
    import json
    import subprocess
    import sys
    import tempfile

    from harness.catalog.card import KINDS
    from harness.catalog.spec import MethodSpec
    from harness.cli.output import print_json, print_table
    from harness.errors import EnvironmentFailed, unknown_name

    for name in methods or ():
        MethodSpec.parse(name).build()
    if kind and kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    suite = Path(__file__).parents[2] / "ci" / "bench"
    with tempfile.TemporaryDirectory() as folder:
        file = benchmark_json or Path(folder) / "benchmark.json"
        command = [
            sys.executable,
            "-m",
            "pytest",
            str(suite),
            "-q",
            "--import-mode=importlib",
            "-p",
            "no:cacheprovider",
        ]
        command += [f"--benchmark-json={file}", f"--zoo-threads={threads}", f"--zoo-methods={','.join(methods or ())}"]
        command += [f"--zoo-model={model}"] if model else []
        command += [f"--zoo-kind={kind}"] if kind else []
        done = subprocess.run(command, stdout=sys.stderr, check=False)
        if not file.is_file() or not file.stat().st_size:
            raise EnvironmentFailed(f"nothing was measured; pytest ended with exit code {done.returncode}")
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if json_:
        print_json(document)
    else:
        print_table(
            ("method", "workload", "speed-up", "interval", "call p50 ms", "error", "memory", "counts"), _rows(document)
        )
    if done.returncode:
        raise EnvironmentFailed("some benchmarks failed; their reasons stand above")


def _rows(document: dict[str, Any]) -> list[list[Any]]:
    """One row a workload, read from what rides in ``extra_info``."""
    rows = []
    for entry in document["benchmarks"]:
        for workload, figures in entry["extra_info"].items():
            ratio = figures.get("speedup", {})
            interval = f"[{ratio['low']:.3g}, {ratio['high']:.3g}]" if ratio.get("low") else ""
            value = {name: figures.get(name, {}).get("value") for name in ("call_p50", "error_rms", "memory_ratio")}
            own = ", ".join(f"{name} {figures[name]['value']:.4g}" for name in sorted(set(figures) - COMMON))
            rows.append([entry["params"]["method_id"], workload, ratio.get("value"), interval, *value.values(), own])
    return rows
