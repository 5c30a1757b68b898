"""Runs kvpress presses on a saved model; works in kvpress's own environment and imports nothing of the zoo.

``python kvpress_scores.py FOLDER``, with the folder of the zoo's ``worker.py`` on the module path, reads
``FOLDER/model`` (a transformers checkpoint) and ``FOLDER/request.json``: ``presses`` (``label``, ``name``, ``options``
and, for wrappers, ``inner``), ``keep_ratio``, and ``rows`` (a ``context`` and its ``continuations``, as ids). It writes
``FOLDER/answer.json``: for each press and row the kept places of each layer and key/value head, the bytes that are
left, and each continuation's log-probability. ``scores`` are added for contexts of at most 256 tokens.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.utils import logging
from worker import EAGER, made, ratio_for


def run(model: Any, row: dict[str, Any], spec: dict[str, Any], keep_ratio: float) -> dict[str, Any]:
    """What one press keeps of a context, and how likely the continuations are after it."""
    ids = torch.tensor([row["context"]])
    length = ids.shape[1]
    press = made(spec, ratio_for(keep_ratio, length))
    scorer = getattr(press, "press", press)
    scores: list[torch.Tensor] = []
    plain = scorer.score

    def noted(*args: Any, **kwargs: Any) -> torch.Tensor:
        result = plain(*args, **kwargs)
        scores.append(result.detach().clone().float())
        return result

    scorer.score = noted
    model.set_attn_implementation("eager" if spec["name"] in EAGER else "sdpa")
    cache = DynamicCache()
    with torch.no_grad(), press(model):
        last = model(ids, past_key_values=cache, logits_to_keep=1).logits[0, -1]
    masks = [getattr(layer.self_attn, "masked_key_indices", None) for layer in model.model.layers]
    kept = [kept_places(*one) for one in zip(scores, cache.layers, masks, strict=True)]
    answer = {
        "kept": kept,
        "bytes": sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values)),
        "logprobs": [logprob(model, cache, last, length, tokens) for tokens in row["continuations"]],
    }
    for layer in model.model.layers:
        layer.self_attn.masked_key_indices = None
    return answer | ({"scores": [score[0].tolist() for score in scores]} if length <= 256 else {})


def kept_places(score: torch.Tensor, layer: Any, masked: Any) -> list[list[int]]:
    """Places that a layer's heads still read: the best scores, or all but those that are masked."""
    if masked is None:
        return [sorted(row.topk(layer.keys.shape[2]).indices.tolist()) for row in score[0]]
    gone = set(zip(masked[1].tolist(), masked[2].tolist(), strict=True))
    return [[j for j in range(score.shape[2]) if (h, j) not in gone] for h in range(score.shape[1])]


def logprob(model: Any, cache: Any, last: torch.Tensor, length: int, tokens: list[int]) -> float:
    """Log-probability of tokens after the context, read one by one as layers may differ in length."""
    branch, logits, total = copy.deepcopy(cache), last, 0.0
    for step, token in enumerate(tokens):
        total += float(logits.float().log_softmax(-1)[token])
        if step + 1 < len(tokens):
            place = torch.tensor([[length + step]])
            with torch.no_grad():
                logits = model(torch.tensor([[token]]), past_key_values=branch, position_ids=place).logits[0, -1]
    return total


def main() -> None:
    """Answer the request in the folder of the command line."""
    logging.disable_progress_bar()
    folder = Path(sys.argv[1])
    request = json.loads((folder / "request.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    answer = {
        spec["label"]: [run(model, row, spec, request["keep_ratio"]) for row in request["rows"]]
        for spec in request["presses"]
    }
    (folder / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
