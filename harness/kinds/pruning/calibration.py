"""Runs a subject, with its whole cache, over texts and shows every decoding query to a method that learns from it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch

from harness.errors import UsageError
from harness.subjects.requests import GenerateRequest
from harness.subjects.subject import Subject
from harness.subjects.views import QueryView
from harness.toolkit.corpora import documents


def calibration_prompts(subject: Subject, corpus: str, count: int, tokens: int, seed: int) -> list[list[int]]:
    """``count`` stretches of ``tokens`` tokens from the training split of a corpus, its documents one after another."""
    text = "\n\n".join(documents(corpus, "train", 16 * count * tokens, seed))
    ids = subject.text_tokenizer().encode(text)
    if len(ids) < count * tokens:
        raise UsageError(f"corpus {corpus!r} has {len(ids)} tokens; {count} texts of {tokens} are asked for")
    return [ids[start : start + tokens] for start in range(0, count * tokens, tokens)]


def watch_decoding(
    subject: Subject, prompts: list[list[int]], new_tokens: int, look: Callable[[QueryView], None]
) -> None:
    """Decode greedily after each prompt, with the whole cache, and show ``look`` each layer at each step."""

    def select(view: QueryView) -> None:
        if view.phase == "decode":
            look(view)

    watched = replace(subject, new_cache=functools.partial(cast(Any, subject.new_cache), select=select))
    with torch.inference_mode():
        for prompt in prompts:
            watched.generate(GenerateRequest(prompts=[prompt], max_new_tokens=new_tokens + 1, ignore_eos=True))
