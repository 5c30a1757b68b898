"""Runs a subject, with its whole cache, over texts and shows every decoding query to a method that learns from it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from harness.errors import UsageError
from harness.kinds.pruning.base import PruningMethod
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


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Calibrated(PruningMethod):
    """A method that learns from decoding after stretches of a corpus, before anything is pruned."""

    trains: ClassVar[bool] = True

    corpus: str = Field("python_docs", description="calibration texts: corpus name, or path of a file or folder")
    texts: int = Field(4, ge=1, description="calibration texts")
    text_tokens: int = Field(512, ge=8, description="tokens of each")
    steps: int = Field(16, ge=1, description="decoding steps after each")

    def mean_of(self, subject: Subject, seed: int, measure: Callable[[QueryView], Tensor]) -> Tensor:
        """What ``measure`` says of each layer's decoding query, by layer, the mean over texts and steps; on the CPU."""
        sums: dict[int, Tensor] = {}

        def look(view: QueryView) -> None:
            sums[view.layer] = sums.get(view.layer, 0) + measure(view).cpu()

        prompts = calibration_prompts(subject, self.corpus, self.texts, self.text_tokens, seed)
        watch_decoding(subject, prompts, self.steps, look)
        return torch.stack([sums[layer] for layer in sorted(sums)]) / (self.texts * self.steps)
