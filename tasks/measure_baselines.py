"""Measures the default model on the zoo's tasks and writes the table of ``tasks/README.md`` from what it found.

``python -m tasks.measure_baselines`` runs all tasks, ``--tasks a,b`` some of them (the others keep their figures),
``--render`` only writes the table again from ``baselines.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks import our_configs

HERE = Path(__file__).parent
BEGIN, END = "<!-- table: written by measure_baselines.py -->", "<!-- end of table -->"
MAIN_METRICS = ("acc_norm", "acc", "last_int", "exact_match", "bits_per_byte")
TAGS = ("zoo_generated", "zoo_packaged", "zoo_tokenization")
OWN_SOURCE = "generated from this project's word lists (Apache-2.0)"

Figure = dict[str, float | int | None]


def estimate(values: Sequence[Any]) -> Figure:
    """Mean of a metric's per-document values with its 95 % interval.

    0/1 values get Wilson's interval, others a percentile bootstrap over documents; ``(log-likelihood, bytes)`` pairs
    become bits per byte.
    """
    import numpy as np
    from scipy import stats

    data = np.asarray(values, dtype=float)
    if data.ndim == 1 and set(data.tolist()) <= {0.0, 1.0}:
        interval = stats.binomtest(int(data.sum()), len(data)).proportion_ci(method="wilson")
        return {"value": float(data.mean()), "low": float(interval.low), "high": float(interval.high), "n": len(data)}

    def statistic(*columns: Any, axis: int = -1) -> Any:
        if len(columns) == 1:
            return columns[0].mean(axis)
        return -columns[0].sum(axis) / columns[1].sum(axis) / math.log(2)

    columns = (data,) if data.ndim == 1 else tuple(data.T)
    found = stats.bootstrap(
        columns, statistic, paired=len(columns) > 1, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
    ).confidence_interval
    return {
        "value": float(statistic(*columns)),
        "low": float(found.low),
        "high": float(found.high),
        "n": len(data),
    }


def chance_level(output_type: str, samples: Sequence[Mapping[str, Any]]) -> float | None:
    """What guessing scores: the mean of 1 / options; 0 for free answers, nothing for likelihoods of texts.

    Where all documents have the same options, always giving the most frequent answer may score more.
    """
    if output_type == "multiple_choice":
        even = sum(1 / len(s["doc"]["choices"]) for s in samples) / len(samples)
        if len({tuple(s["doc"]["choices"]) for s in samples}) > 1:
            return even
        return max(even, Counter(s["doc"]["answer"] for s in samples).most_common(1)[0][1] / len(samples))
    return 0.0 if output_type == "generate_until" else None


def verdict(figure: Figure, chance: float | None) -> str:
    """Where the model stands between chance and 1: ``floor``, ``low``, ``middle``, ``high`` or ``ceiling``.

    ``middle`` is from a quarter to three quarters of the way. ``floor``: the interval reaches the first twentieth
    of the way; ``ceiling``: it reaches the last. Without a chance level (bits per byte) it is ``open``.
    """
    if chance is None:
        return "open"
    value, low, high = ((float(figure[k]) - chance) / (1 - chance) for k in ("value", "low", "high"))  # type: ignore[arg-type]
    if low <= 0.05:
        return "floor"
    if high >= 0.95:
        return "ceiling"
    return "low" if value < 0.25 else "high" if value > 0.75 else "middle"


def measure(subject: Any, task: str, limit: int | None = None) -> dict[str, Any]:
    """One task's figures, chance level and CPU seconds."""
    from harness.evaluate.quality import EvalOptions, run_task

    began = time.process_time()
    samples = run_task(subject, task, EvalOptions(limit=limit, batch_size=16)).samples[task]
    seconds = time.process_time() - began
    config = our_configs()[task]
    figures = {
        name: estimate([s[name] for s in samples])
        for name in (m["metric"] for m in config["metric_list"])
        if name != "pair_acc"  # its unit is the pair, not the document
    }
    chance = chance_level(config["output_type"], samples)
    main = next(name for name in MAIN_METRICS if name in figures)
    return {
        "metric": main,
        "figures": figures,
        "chance": chance,
        "version": config["metadata"]["version"],
        "cpu_seconds": round(seconds, 1),
    }


def measured_tasks() -> list[str]:
    """Names of the tasks that have a row: those of the tags :data:`TAGS`."""
    return [name for name, config in our_configs().items() if config.get("tag") in TAGS]


def _cell(figure: Figure) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def table(record: Mapping[str, Any]) -> str:
    """The Markdown table and the line that says how it was measured."""
    lines = [
        "| task | measures | source and licence | n | metric | chance | score, 95 % interval | second metric | stands "
        "| default suites | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    configs = our_configs()
    for task, row in sorted(record["tasks"].items()):
        metadata = configs[task]["metadata"]
        other = next(
            (
                k
                for k in ("choice_margin", "word_match", "doc_bits_per_byte", "invalid", "within_one", "digit_match")
                if k in row["figures"]
            ),
            None,
        )
        second = f"{other} {_cell(row['figures'][other])}" if other else ""
        chance = "" if row["chance"] is None else f"{row['chance']:.3f}"
        main = row["figures"][row["metric"]]
        stands = verdict(main, row["chance"])
        inside = "no" if stands in ("floor", "ceiling") else "yes"
        cells = [f"`{task}`", metadata["measures"], metadata.get("source", OWN_SOURCE), main["n"], row["metric"]]
        cells += [chance, _cell(main), second, stands, inside, row["cpu_seconds"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    said = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    how = f"Model `{record['model']}` in {record['dtype']}, no method, on {record['machine']}, "
    how += f"{record['threads']} thread(s); {said}.\nCommand: `python -m tasks.measure_baselines`."
    return "\n".join([*lines, "", how])


def write_readme(record: Mapping[str, Any], readme: Path = HERE / "README.md") -> None:
    """Put the table between its two marks; the rest of the page is left alone."""
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{table(record)}\n{END}{after}", encoding="utf-8")


def _circumstances(subject: Any) -> dict[str, Any]:
    import torch

    from harness.measure.machine import machine_key
    from harness.measure.provenance import versions

    wanted = ("python", "torch", "transformers", "lm_eval")
    return {
        "model": subject.name,
        "dtype": str(subject.dtype).removeprefix("torch."),
        "machine": machine_key().cpu,
        "threads": torch.get_num_threads(),
        "versions": {k: v for k, v in versions().items() if k in wanted},
    }


def main() -> None:
    """Measure, keep the figures after each task, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-q4")
    parser.add_argument("--tasks", default="", help="names with commas; all tasks of this folder if empty")
    parser.add_argument("--render", action="store_true", help="only write the table again")
    options = parser.parse_args()
    kept = HERE / "baselines.json"
    record = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {"tasks": {}}
    if not options.render:
        from harness.subjects.load import load_subject

        subject = load_subject(options.model)
        record |= _circumstances(subject)
        for task in options.tasks.split(",") if options.tasks else measured_tasks():
            record["tasks"][task] = measure(subject, task)
            kept.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            print(task, record["tasks"][task]["figures"], flush=True)
    write_readme(record)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
