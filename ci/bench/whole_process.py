"""Whole processes in turns: the start of `zoo`, `zoo run --quality-only` against lm-eval's own command line, and six
methods against one.

Run `python ci/bench/whole_process.py [start|lm_eval|six]`. Prints wall time, CPU time and peak memory of each side, and
their ratio pair by pair.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.subjects.catalog import DEFAULT_MODEL
from harness.subjects.embedded import obtain_smollm2
from tasks import include_path

BIN = Path(sys.executable).parent
LIMIT, TASK, BATCH = 100, "zoo_nll_text", 8
SIX = ("kv_full", "kv_snapkv", "kv_snapkv@keep_ratio=0.75", "kv_snapkv@keep_ratio=0.9", "kv_snapkv@window=16", "ar")


def once(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds (children included) and peak memory in MB of one process."""
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    script = "import resource,subprocess,sys;c=subprocess.call(sys.argv[1:],stdout=-3,stderr=-3);"
    script += "r=resource.getrusage(resource.RUSAGE_CHILDREN);print(c,r.ru_utime+r.ru_stime,r.ru_maxrss/1024)"
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, *command], env=variables, capture_output=True, text=True, check=True
    )
    wall = time.perf_counter() - started
    code, cpu, memory = done.stdout.split()
    if code != "0":
        raise SystemExit(f"{' '.join(command)} ended with exit code {code}")
    return wall, float(cpu), float(memory)


def report(name: str, rows: list[tuple[float, float, float]]) -> None:
    """The smallest wall and CPU time, and the largest memory."""
    wall, cpu, memory = zip(*rows, strict=True)
    print(f"{name}: wall {min(wall):.2f} s, CPU {min(cpu):.2f} s, peak memory {max(memory):.0f} MB ({len(rows)} runs)")


def pair(one: tuple[str, list[str]], other: tuple[str, list[str]], rounds: int) -> None:
    """Run both in turns and print the ratio of each pair."""
    rows: dict[str, list[tuple[float, float, float]]] = {one[0]: [], other[0]: []}
    for _ in range(rounds):
        for name, command in (one, other):
            rows[name].append(once(command))
    for name, figures in rows.items():
        report(name, figures)
    for what, index in (("wall", 0), ("CPU", 1), ("memory", 2)):
        ratios = [a[index] / b[index] for a, b in zip(rows[one[0]], rows[other[0]], strict=True)]
        print(f"{what} {one[0]} / {other[0]}: {', '.join(f'{r:.2f}' for r in ratios)}")


def zoo_run(methods: tuple[str, ...], task: str = TASK, limit: int = LIMIT, model: str = DEFAULT_MODEL) -> list[str]:
    """A quality-only run of the methods into a folder of its own."""
    chosen = [word for method in methods for word in ("--method", method)]
    command = [str(BIN / "zoo"), "run", *chosen, "--model", model, "--tasks", task, "--limit", str(limit)]
    return [
        *command,
        "--batch_size",
        str(BATCH),
        "--quality-only",
        "--output_path",
        tempfile.mkdtemp(),
        "--rerun",
        "--json",
    ]


def main() -> None:
    """Run what was asked for, or everything."""
    wanted = sys.argv[1:] or ["start", "lm_eval", "six"]
    if "start" in wanted:
        for words in (["--help"], ["list"]):
            report(f"zoo {words[0]}", [once([str(BIN / "zoo"), *words]) for _ in range(10)])
    if "lm_eval" in wanted:
        arguments = f"pretrained={obtain_smollm2()},dtype=bfloat16"
        lm_eval = [str(BIN / "lm_eval"), "run", "--model", "hf", "--model_args", arguments, "--tasks", TASK]
        lm_eval += ["--limit", str(LIMIT), "--batch_size", str(BATCH), "--device", "cpu"]
        lm_eval += ["--include_path", str(include_path()), "--output_path", tempfile.mkdtemp(), "--log_samples"]
        pair(("zoo run", zoo_run(("kv_full",))), ("lm_eval", lm_eval), rounds=2)
    if "six" in wanted:
        # On a model of a few thousand parameters next to nothing of the time is forward passes.
        six, one = (zoo_run(methods, "zoo_kvc8", 100, "tiny-random") for methods in (SIX, SIX[:1]))
        pair(("six methods", six), ("one method", one), rounds=3)


if __name__ == "__main__":
    main()
