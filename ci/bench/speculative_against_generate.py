"""The zoo's drafting against transformers' own, on the prompts of the six groups, in interleaved pairs.

    python ci/bench/speculative_against_generate.py [--count 4] [--methods merged_tree] [--dtype float32]

transformers drafts from the prompt (``prompt_lookup_num_tokens``) and with a model (``assistant_model``: the student of
``adaspec``, where ``zoo train adaspec`` has made it). Each of its settings is paired with our method on all prompts;
its best setting is the one that stands against ours.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from ci.bench.ar_against_generate import library_model, side
from harness.catalog.spec import MethodSpec
from harness.kinds.artifacts import ArtifactStore
from harness.kinds.stack import applied
from harness.measure.machine import busy, load_snapshot, machine_key
from harness.measure.pairs import run_pairs, timed_sides
from harness.subjects.catalog import DEFAULT_MODEL
from harness.subjects.load import load_subject
from harness.subjects.requests import GenerateRequest
from harness.subjects.subject import Subject
from tasks.prompts import prompt_ids
from tasks.spec_groups import GROUPS

WARM_UP = 4
LOOKUP = [{"prompt_lookup_num_tokens": tokens, "max_matching_ngram_size": n} for tokens in (3, 10) for n in (2, 3)]
ASSISTED = [{"num_assistant_tokens": tokens, "num_assistant_tokens_schedule": "constant"} for tokens in (2, 4)]


def library_side(model: Any, prompts: list[list[int]], new_tokens: int, settings: dict[str, Any]):  # type: ignore[no-untyped-def]
    """transformers' generate with these settings."""

    def call(unit: int) -> int:
        ids = torch.tensor([prompts[unit]], device=model.device)
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, min_new_tokens=new_tokens,
                do_sample=False, past_key_values=DynamicCache(config=model.config), **settings,
            )  # fmt: skip
        return int(out.shape[1]) - ids.shape[1]

    call(0)
    return side(call)


def against(
    subject: Subject, method: str, group: str, peers: dict[str, dict[str, Any]], args: Any
) -> list[dict[str, Any]]:
    """Ratios of a method to each setting of transformers on one group."""
    prompts = prompt_ids(group, args.count + WARM_UP, subject.tokenizer)
    model = library_model(subject)
    store = ArtifactStore()
    rows = []
    with applied([MethodSpec.parse(method).build()], subject, store.obtain) as drafting:
        for prompt in prompts[args.count :]:
            drafting.generate(GenerateRequest(prompts=[prompt], max_new_tokens=args.new_tokens, ignore_eos=True))
        state = drafting.decoder.snapshot()

        def ours(unit: int) -> object:
            asked = GenerateRequest(prompts=[prompts[unit]], max_new_tokens=args.new_tokens, ignore_eos=True)
            return drafting.generate(asked)[0]

        for name, settings in peers.items():
            theirs = library_side(model, prompts, args.new_tokens, settings)
            mine = side(ours, lambda: drafting.decoder.restore(state))
            ratio = run_pairs(timed_sides(mine, theirs), range(args.count)).speedup()
            rows.append(
                {
                    "group": group,
                    "method": method,
                    "peer": name,
                    "ratio": ratio.value,
                    "low": ratio.low,
                    "high": ratio.high,
                }
            )
            print(
                f"{group:14} {method} is {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] times {name}", flush=True
            )
    return rows


def peer_settings(subject: Subject, student: bool) -> dict[str, dict[str, Any]]:
    """transformers' plain decoding and its two ways of drafting, each at a few settings."""
    peers: dict[str, dict[str, Any]] = {"generate": {}}
    for settings in LOOKUP:
        peers["prompt lookup " + " ".join(map(str, settings.values()))] = settings
    if student:
        method = MethodSpec.parse("adaspec").build()
        with method.apply(subject, ArtifactStore().obtain(method, subject)) as opened:
            assistant = library_model(opened)
        for settings in ASSISTED:
            assistant_settings = {"assistant_model": assistant, **settings}
            peers[f"assistant {settings['num_assistant_tokens']}"] = assistant_settings
    return peers


def main() -> None:
    """Pair every method with every setting, group by group."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--methods", nargs="+", default=["merged_tree"])
    parser.add_argument("--groups", nargs="+", default=list(GROUPS))
    parser.add_argument(
        "--student", action="store_true", help="compare with assistant_model too; trains adaspec if needed"
    )
    parser.add_argument("--dtype", help="left out: the model's own")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    subject = load_subject(DEFAULT_MODEL, dtype=args.dtype)
    before, peers = load_snapshot(), peer_settings(subject, args.student)
    rows = [row for m in args.methods for group in args.groups for row in against(subject, m, group, peers, args)]
    document = {
        "machine": machine_key().label,
        "busy": busy(before, load_snapshot()),
        "command": sys.argv,
        "rows": rows,
    }
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
