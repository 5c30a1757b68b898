"""`ar` against transformers' own `generate` on the same prompts, in interleaved pairs.

Run `python ci/bench/ar_against_generate.py [MODEL]`. Prints one line a workload: the ratio of times with its 95 %
interval, tokens per second, the MBU of a decode step, and the share of a step that the model itself does not need.
"""

from __future__ import annotations

import copy
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from harness.measure import roofline
from harness.measure.ceilings import ceilings
from harness.measure.pairs import Block, run_pairs, timed_sides
from harness.subjects.catalog import DEFAULT_MODEL
from harness.subjects.load import load_subject
from harness.subjects.requests import GenerateRequest
from harness.subjects.sampling import Sampler
from harness.subjects.subject import Subject
from tasks.prompts import prompt_ids

NEW_TOKENS, COUNT = 48, 8


def library_model(subject: Subject) -> AutoModelForCausalLM:
    """The same weights behind transformers' default attention, without end-of-text so that lengths are equal."""
    # A copy: from_config would give the subject's own model another attention, and its text would be nonsense.
    config = copy.deepcopy(subject.model.config)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=subject.dtype)
    model.load_state_dict(subject.model.state_dict())
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()


def side(call: Callable[[int], object], before: Callable[[], None] = lambda: None):  # type: ignore[no-untyped-def]
    """A side of the pair whose unit is a prompt; ``before`` is not timed."""

    @contextmanager
    def opened(unit: int) -> Iterator[Callable[[], object]]:
        before()
        yield lambda: call(unit)

    return opened


def compare(subject: Subject, model: AutoModelForCausalLM, prompts: list[list[int]], name: str) -> None:
    """Time both on the prompts and print the ratio."""

    def ours(unit: int) -> object:
        request = GenerateRequest(prompts=[prompts[unit]], max_new_tokens=NEW_TOKENS, ignore_eos=True)
        return subject.generate(request)[0]

    def library(unit: int) -> object:
        ids = torch.tensor([prompts[unit]], device=model.device)
        with torch.inference_mode():
            return model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False,
                past_key_values=DynamicCache(config=model.config),
            )  # fmt: skip

    ours(0), library(0)
    run = run_pairs(timed_sides(side(ours), side(library)), range(len(prompts)))
    ratio = run.speedup()
    fastest: Block = min(run.of("candidate"), key=lambda b: b.result.tpot_s)
    shape = roofline.model_shape(subject.model)
    moved = roofline.forward_bytes(shape, 1, kv_bytes=fastest.result.counts["kv_bytes_held"])
    share = roofline.mbu(moved, fastest.result.tpot_s, ceilings("cpu").bandwidth)
    rate = 1 / fastest.result.tpot_s
    print(
        f"{name}: {ratio.value:.3f} times generate's speed [{ratio.low:.3f}, {ratio.high:.3f}], "
        f"{rate:.1f} decode tokens/s, MBU {share:.2f}, {len(prompts)} prompts"
    )


def overhead(subject: Subject, prompt: list[int]) -> None:
    """What a decode step adds to the model's forward and the token's choice: positions, slots, commit, stop rule."""
    needed: list[float] = []

    def timing(function: Callable[..., object]) -> Callable[..., object]:
        def timed(*args: object, **kwargs: object) -> object:
            started = time.perf_counter()
            out = function(*args, **kwargs)
            needed.append(time.perf_counter() - started)
            return out

        return timed

    request = GenerateRequest(prompts=[prompt], max_new_tokens=200, ignore_eos=True)
    with (
        mock.patch.object(subject.model, "forward", timing(subject.model.forward)),
        mock.patch.object(Sampler, "pick_rows", timing(Sampler.pick_rows)),
    ):
        row = subject.generate(request)[0]
    gaps = [b - a for a, b in itertools.pairwise(row.stamps_s)]
    # After the prefill and its choice, each step is one forward and one choice.
    steps = [needed[2 + 2 * i] + needed[3 + 2 * i] for i in range(len(gaps))]
    added = sorted((gap - step) / gap for gap, step in zip(gaps, steps, strict=True))
    print(f"harness share of a decode step: median {added[len(added) // 2]:.2%}")


def main() -> None:
    """Compare on short chat prompts and on a prompt of 512 tokens."""
    torch.set_num_threads(1)
    subject = load_subject(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_MODEL)
    model = library_model(subject)
    for name, length in (("chat", 0), ("prose", 512)):
        prompts = prompt_ids(name, COUNT, subject.text_tokenizer(), length)
        compare(subject, model, prompts, f"{name}:{length or 'natural'}x{NEW_TOKENS}")
    overhead(subject, prompt_ids("prose", 1, subject.text_tokenizer(), 256)[0])


if __name__ == "__main__":
    main()
