"""What the checks of several kinds share: prompts, a float32 twin, forced decoding, equal texts, restoration."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.kinds.method import Check, Method
from harness.subjects.requests import GenerateRequest, Generation
from harness.subjects.runner import Runner
from harness.subjects.sampling import Sampler
from harness.subjects.subject import Subject

TOLERANCE = 1e-4
"""Largest difference of logits, in float32, that rounding may explain."""
TIE = 1e-3
"""Two logits this close may change places with the width of a forward."""


class Interrupted(Exception):
    """Raised on purpose inside an open method, to see whether it cleans up."""


def float32_twin(subject: Subject) -> Subject:
    """The subject itself in float32, else with a float32 copy of its model: the tolerances hold in that type."""
    if subject.dtype == torch.float32:
        return subject
    return replace(subject, model=copy.deepcopy(subject.model).float())


def random_ids(subject: Subject, length: int, seed: int) -> list[int]:
    """Ids drawn evenly from the model's vocabulary."""
    size = int(subject.model.config.get_text_config().vocab_size)
    return torch.randint(0, size, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def forced_logits(subject: Subject, prompts: Sequence[Sequence[int]], forced_BT: Sequence[Sequence[int]]) -> Tensor:
    """Logits ``[B, T + 1, V]``: after the prompts, then after each of the given tokens, fed one a forward."""
    with torch.inference_mode():
        runner = Runner(subject.model, subject.new_cache)
        logits = [runner.prefill(prompts)]
        for column in zip(*forced_BT, strict=True):
            logits.append(runner.forward(torch.tensor(column, device=subject.device)[:, None])[:, -1])
            runner.commit()
    return torch.stack(logits, 1).float()


def assert_close(what: str, ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    """Raise with the largest difference where it exceeds the tolerance or is not a number."""
    error = float((ours - theirs).abs().max()) if ours.numel() else 0.0
    if not error <= tolerance:
        raise AssertionError(f"{what}: logits differ by {error:.3g} (allowed {tolerance:.3g})")


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """Index of the first token that differs (or that only one of them has); None where they are equal."""
    for index in range(max(len(ours), len(theirs))):
        if ours[index : index + 1] != theirs[index : index + 1]:
            return index
    return None


def assert_same_text(
    subject: Subject, request: GenerateRequest, row: int, ours: Generation, theirs: Generation, what: str
) -> bool:
    """Raise where a token differs though the plain forward was not undecided; returns whether all are equal."""
    at = first_difference(ours.tokens, theirs.tokens)
    if at is None:
        return True
    prompt, common = request.prompts[row], theirs.tokens[:at]
    logits_V = forced_logits(subject, [prompt], [common])[0, -1]
    best = Sampler(request, subject.device).processed(logits_V, [*prompt, *common]).topk(2).values
    gap = float(best[0] - best[1])
    if gap > TIE or request.temperature > 0:
        raise AssertionError(
            f"{what}: token {at} is {ours.tokens[at : at + 1]}, plain decoding gives {theirs.tokens[at : at + 1]} "
            f"(its best logit leads by {gap:.3g}, prompt of {len(prompt)} tokens)"
        )
    return False


def rounding_error(subject: Subject, prompt: Sequence[int], forced: Sequence[int]) -> float:
    """How far the logits of one row move when its embeddings are off by a rounding of float32.

    A cache without the text's first tokens can be a thousand times more sensitive than a full one, so that the order
    of sums in a batch alone explains more than :data:`TOLERANCE`.
    """
    exact, moved = forced_logits(subject, [prompt], [forced]), 0.0
    for seed in range(2):
        noise = torch.Generator(subject.device).manual_seed(seed)

        def off_by_a_rounding(_module: Any, _inputs: Any, out: Tensor, noise: torch.Generator = noise) -> Tensor:
            relative = torch.randn(out.shape, generator=noise, device=out.device, dtype=out.dtype)
            return out * (1 + torch.finfo(torch.float32).eps * relative)

        hook = subject.model.get_input_embeddings().register_forward_hook(off_by_a_rounding)
        try:
            moved = max(moved, float((forced_logits(subject, [prompt], [forced]) - exact).abs().max()))
        finally:
            hook.remove()
    return moved


def fingerprint(model: Any) -> tuple[Any, ...]:
    """What a method might leave behind: replaced modules or forwards, hooks, another attention, moved weights."""
    modules = tuple(
        (name, type(part).__name__, "forward" in vars(part), len(part._forward_hooks), len(part._forward_pre_hooks))
        for name, part in model.named_modules()
    )
    weights = tuple((name, tuple(p.shape), p.dtype, p.data_ptr()) for name, p in model.named_parameters())
    return modules, weights, model.config._attn_implementation


def restoration_checks(method: Method, subject: Subject) -> Iterable[Check]:
    """The model and its logits are bit for bit as before, once the method is left and also after an exception."""

    def restored(interrupt: bool) -> None:
        prompts, forced = [random_ids(subject, 12, 3)], [random_ids(subject, 2, 4)]
        state, logits = fingerprint(subject.model), forced_logits(subject, prompts, forced)
        try:
            with method.apply(subject) as opened:
                forced_logits(opened, prompts, forced)
                if interrupt:
                    raise Interrupted
        except Interrupted:
            pass
        if fingerprint(subject.model) != state:
            raise AssertionError("the model's modules, hooks, weights or attention are not as before")
        assert_close("after the method was left", forced_logits(subject, prompts, forced), logits, 0.0)

    yield Check("restored after exit", lambda: restored(False))
    yield Check("restored after an exception", lambda: restored(True))
