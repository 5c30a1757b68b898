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
from harness.subjects.runner import Runner
from harness.subjects.subject import Subject
from harness.subjects.views import LayerView, QueryView
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


def watch_prompts(subject: Subject, prompts: list[list[int]], look: Callable[[LayerView], None]) -> None:
    """Read prompts one by one, with the whole cache, and show ``look`` each layer of each."""

    def evict(view: LayerView) -> None:
        look(view)

    # What is seen may be trained on, which tensors of the inference mode forbid.
    with torch.no_grad():
        for prompt in prompts:
            Runner(subject.model, functools.partial(cast(Any, subject.new_cache), evict=evict)).prefill([prompt])


def largest_part(mass_LH: Tensor, part: float) -> Tensor:
    """``[L, H]``, True for the ``part`` of all heads with the largest mass; ties go to the earlier head."""
    count = round(part * mass_LH.numel())
    best = mass_LH.flatten().argsort(descending=True, stable=True)[:count]
    return torch.zeros(mass_LH.numel(), dtype=torch.bool).index_fill(0, best, True).view_as(mass_LH)


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
