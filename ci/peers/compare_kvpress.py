"""Compares the zoo's pruning methods with kvpress: same model, same contexts, same budget.

``python ci/peers/compare_kvpress.py PYTHON`` takes the interpreter of an environment made by ``make_environment.sh
kvpress``. For each pair it prints the share of equal sets (layer by layer, head by head), their mean overlap
(intersection over union), the largest differences of scores and of a continuation's log-probability, and the bytes held
on each side: on a random model, or with ``--task zoo_ruler_multikey_blind --limit 8`` on the default model, then with
both accuracies. Scores are compared for contexts of at most 256 tokens, where neither side forces a slot to stay.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import nan
from pathlib import Path
from typing import Any

import torch

from harness.catalog.spec import MethodSpec
from harness.kinds.pruning.checks import Kept, kept_positions
from harness.kinds.pruning.foreign import press_spec, worker
from harness.subjects.load import load_subject, wrap_model
from harness.subjects.requests import ScoreRequest
from harness.subjects.runner import Runner
from harness.subjects.subject import Subject
from harness.subjects.tiny import random_llama
from harness.subjects.views import LayerView
from tasks import our_configs

Row = dict[str, Any]


def pairs(window: int) -> dict[str, tuple[str, str]]:
    """Each press with the method whose definition is nearest, and how the press is written."""
    snap, ours = f"(window_size={window}, kernel_size=5)", f"@window={window}@kernel=5"
    return {
        "KnormPress": ("kv_knorm", "Knorm"),
        "SnapKVPress": (f"kv_snapkv{ours}", f"SnapKV{snap}"),
        "StreamingLLMPress": ("kv_streaming", "StreamingLLM(n_sink=4)"),
        "TOVAPress": ("kv_tova", "TOVA"),
        "ObservedAttentionPress": ("kv_h2o@recent=0.0@normalise=true", "ObservedAttention"),
        "AdaKVPress(SnapKVPress)": (f"kv_ada{ours}", f"AdaKV(SnapKV{snap})"),
        "PyramidKVPress": (f"kv_pyramid{ours}", f"PyramidKV{snap}"),
    }


@dataclass(frozen=True)
class Agreement:
    """How far one pair agrees; slots by layer and bytes are those of the first row, accuracies of all."""

    equal_sets: float
    overlap: float
    score_error: float
    logprob_error: float
    slots: tuple[list[int], list[int]]
    bytes: tuple[int, int]
    accuracy: tuple[float, float]


def random_case(seed: int = 0, length: int = 160) -> tuple[Subject, list[Row]]:
    """A random Llama of three layers, four query and two key/value heads, and a prompt with a token after it."""
    subject = wrap_model(random_llama(seed, num_hidden_layers=3)[0], None, "random")
    ids = torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return subject, [{"context": ids, "continuations": [[7, 9]], "answer": 0}]


def task_case(model: str, task: str, limit: int) -> tuple[Subject, list[Row]]:
    """A model in float32 and a task's items as ids."""
    subject, config = load_subject(model, dtype="float32"), our_configs()[task]
    module, _, name = config["custom_dataset"].removeprefix("function ").rpartition(".")
    made = getattr(importlib.import_module(module), name)(**(config["metadata"] | {"n": limit}))["test"]
    encode, rows = subject.text_tokenizer().encode, []
    for item in made:
        context = encode(item["context"])
        whole = [encode(item["context"] + choice)[len(context) :] for choice in item["choices"]]
        rows.append({"context": context, "continuations": whole, "answer": item["answer"]})
    return subject, rows


def asked(python: str, subject: Subject, rows: Sequence[Row], keep_ratio: float, window: int) -> dict[str, Any]:
    """What kvpress answers, in an environment of its own."""
    presses = [{"label": label, **press_spec(press)} for label, (_, press) in pairs(window).items()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subject.model.save_pretrained(folder / "model")
        request = {"rows": list(rows), "keep_ratio": keep_ratio, "presses": presses}
        (folder / "request.json").write_text(json.dumps(request))
        script = Path(__file__).with_name("kvpress_scores.py")
        environment = {
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
            "PYTHONPATH": str(Path(worker.__file__).parent),
        }
        subprocess.run([python, str(script), str(folder)], check=True, cwd=folder, env=environment)
        answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
        return answer


def kept_by(pruned: Subject, method: Any, context: list[int]) -> tuple[Kept, int, list[torch.Tensor]]:
    """What an open method keeps of a context, the bytes of it, and its scores by layer, ``[H, N]``."""
    scores: list[torch.Tensor] = []

    def noted(view: LayerView) -> Any:
        # A fresh memory, so that looking does not change what the method remembers.
        scores.append(method.scores(replace(view, memory={}))[0])
        return method.evict(view)

    runner = Runner(pruned.model, partial(pruned.new_cache, evict=noted))
    with torch.inference_mode():
        runner.prefill([context])
    return kept_positions(runner.cache, 0), runner.cache.held_bytes(), scores


def score_error(ours: Sequence[torch.Tensor], theirs: Sequence[Any]) -> float:
    """Largest difference where no side forces a slot: forced ones lie above all scores that are attention or norms."""
    worst = 0.0
    for one, other in zip(ours, map(torch.tensor, theirs), strict=True):
        free = (one < 1e4) & (other < other.amax())
        worst = max(worst, float((one - other)[free].abs().max())) if bool(free.any()) else worst
    return worst


def compared(
    subject: Subject, rows: Sequence[Row], answer: dict[str, Any], keep_ratio: float, window: int
) -> dict[str, Agreement]:
    """Every pair's agreement."""
    return {
        label: agreement(subject, rows, answer[label], f"{method}@keep_ratio={keep_ratio}")
        for label, (method, _) in pairs(window).items()
    }


def agreement(subject: Subject, rows: Sequence[Row], theirs: Sequence[Row], method: str) -> Agreement:
    """One pair's."""
    sets, errors, right = [], [], []
    built = MethodSpec.parse(method).build()
    with built.apply(subject) as pruned:
        held = [kept_by(pruned, built, row["context"]) for row in rows]
        requests = [
            ScoreRequest(context=tuple(r["context"]), continuation=tuple(tokens))
            for r in rows
            for tokens in r["continuations"]
        ]
        scores = iter(score.logprob for score in pruned.score(requests))
    for row, (kept, _, _), other in zip(rows, held, theirs, strict=True):
        for layer, heads in zip(kept, other["kept"], strict=True):
            sets += [(set(one), set(two)) for one, two in zip(layer[0], heads, strict=True)]
        ours = [next(scores) for _ in row["continuations"]]
        errors += [abs(a - b) for a, b in zip(ours, other["logprobs"], strict=True)]
        right.append([side.index(max(side)) == row["answer"] for side in (ours, other["logprobs"])])
    both = zip(held, theirs, strict=True)
    # StreamingLLM's scores say no more than what is kept: positions here, zeros and ones there.
    gaps = [score_error(h[2], t["scores"]) for h, t in both if "scores" in t and built.card.id != "kv_streaming"]
    return Agreement(
        sum(one == two for one, two in sets) / len(sets),
        sum(len(one & two) / len(one | two) for one, two in sets) / len(sets),
        max(gaps, default=nan),
        max(errors),
        ([sum(map(len, layer[0])) for layer in held[0][0]], [sum(map(len, heads)) for heads in theirs[0]["kept"]]),
        (held[0][1], theirs[0]["bytes"]),
        (sum(a for a, _ in right) / len(right), sum(b for _, b in right) / len(right)),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python")
    parser.add_argument("--model", default="smollm2-135m-q4")
    parser.add_argument("--task", default="", help="an item generator's task of ours; a random model if empty")
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--keep-ratio", type=float, default=0.3)
    parser.add_argument("--window", type=int, default=8)
    given = parser.parse_args()
    subject, rows = task_case(given.model, given.task, given.limit) if given.task else random_case()
    answer = asked(given.python, subject, rows, given.keep_ratio, given.window)
    heads = f"{'equal sets':>10} {'overlap':>8} {'score error':>11} {'logprob error':>13} {'accuracy':>15}"
    print(f"{'press':25} {heads}  bytes; slots by layer")
    for label, row in compared(subject, rows, answer, given.keep_ratio, given.window).items():
        accuracy = f"{row.accuracy[0]:.2f} / {row.accuracy[1]:.2f}"
        errors = f"{row.score_error:11.2e} {row.logprob_error:13.2e}"
        numbers = f"{row.equal_sets:10.3f} {row.overlap:8.3f} {errors} {accuracy:>15}"
        print(f"{label:25} {numbers}  {row.bytes[0]}, {row.bytes[1]}; {row.slots[0][:4]}, {row.slots[1][:4]}")


if __name__ == "__main__":
    main()
