"""Quality of the zoo's pruning methods beside kvpress's presses, at equal bytes, on the same documents.

``ZOO_KVPRESS_PYTHON=FOLDER/bin/python python -m ci.peers.quality_kvpress`` prints a row for each pair of
``compare_kvpress.pairs``, budget and metric: the mean of each side, the mean of ours minus kvpress's with its 95 %
interval, paired by document, on how many documents the two are equal (to 1e-3), and the bytes of cache that each side
holds after the context, the mean over the first documents. ``kv_h2o``, ``kv_tova`` and ``kv_streaming`` hold their
budget while the continuation is read; kvpress compresses once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ci.bench.long_context_quality import document_values
from ci.peers.compare_kvpress import pairs
from harness.catalog.spec import MethodSpec
from harness.evaluate.quality import EvalOptions, load_task, run_task
from harness.kinds.stack import applied
from harness.stats.quality import paired_difference
from harness.subjects.load import load_subject
from harness.subjects.requests import GenerateRequest
from harness.subjects.subject import Subject

METRICS = {"zoo_kvc16_blind": ("acc", "choice_margin"), "zoo_nll_text": ("doc_bits_per_byte",)}
SAME = 1e-3
WEIGHED = 8
"""Documents whose contexts' bytes are counted."""
HEADS = "method | press | keep | metric | ours | kvpress | difference | equal | bytes ours | bytes kvpress"


@dataclass(frozen=True)
class Side:
    """Each document's values by metric, and the mean bytes held after a context."""

    values: dict[str, list[float]]
    bytes: float


def contexts(subject: Subject, task: str, options: EvalOptions) -> list[list[int]]:
    """The ids that stand in the cache when the first documents' questions come."""
    (loaded,), _ = load_task(task, options)
    docs = list(loaded.test_docs())[:WEIGHED]
    return [subject.text_tokenizer().encode(loaded.doc_to_text(doc)) for doc in docs]


def measured(subject: Subject, task: str, options: EvalOptions) -> Side:
    """One side's answers to a task."""
    samples = run_task(subject, task, options).samples
    values = {name: document_values(samples, name) for name in METRICS[task]}
    held = [
        subject.generate(GenerateRequest(prompts=[ids], max_new_tokens=1))[0].counts["kv_bytes_held"]
        for ids in contexts(subject, task, options)
    ]
    return Side(values, fmean(held))


def sides(subject: Subject, method: MethodSpec, options: EvalOptions) -> dict[str, Side]:
    """A method's answers to all tasks."""
    with applied([method.build()], subject) as opened:
        return {task: measured(opened, task, options) for task in METRICS}


def rows(subject: Subject, given: Sequence[tuple[str, str]], keep_ratio: float, options: EvalOptions) -> Iterator[str]:
    """The table's rows of pairs ``(method, press)`` at one budget."""
    for method, press in given:
        specs = MethodSpec.parse(f"{method}@keep_ratio={keep_ratio}"), foreign(press, keep_ratio)
        ours, theirs = (sides(subject, spec, options) for spec in specs)
        for task, names in METRICS.items():
            for name in names:
                yield f"{method} | {press} | {keep_ratio} | {name} | " + line(ours[task], theirs[task], name)


def foreign(press: str, keep_ratio: float) -> MethodSpec:
    """A press as a method of the zoo."""
    return MethodSpec("kvpress", {"press": press, "keep_ratio": keep_ratio})


def line(ours: Side, theirs: Side, name: str) -> str:
    """Both means, the paired difference, equal documents and bytes."""
    new, old = ours.values[name], theirs.values[name]
    gap = paired_difference(new, old)
    bounds = "" if gap.low is None or gap.high is None else f" [{gap.low:+.4f}, {gap.high:+.4f}]"
    same = sum(abs(a - b) < SAME for a, b in zip(new, old, strict=True))
    means = f"{fmean(new):.4f} | {fmean(old):.4f} | {gap.value:+.4f}{bounds}"
    return f"{means} | {same} of {len(new)} | {ours.bytes:.0f} | {theirs.bytes:.0f}"


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-q4")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--keep-ratio", type=float, nargs="+", default=[0.5, 0.25])
    parser.add_argument("--window", type=int, default=8, help="observation window of both sides")
    args: Any = parser.parse_args()
    subject, options = load_subject(args.model, dtype=args.dtype), EvalOptions(limit=args.limit)
    print(
        "ours | kvpress | keep | metric | ours | kvpress | difference | equal | bytes ours | bytes kvpress", flush=True
    )
    for keep_ratio in args.keep_ratio:
        for row in rows(subject, list(pairs(args.window).values()), keep_ratio, options):
            print(row, flush=True)


if __name__ == "__main__":
    main()
