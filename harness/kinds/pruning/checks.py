"""The invariants of every pruning method, on any subject. Numbers are compared in float32."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from harness.kinds.invariants import (
    TOLERANCE,
    assert_close,
    float32_twin,
    forced_logits,
    random_ids,
    restoration_checks,
    rounding_error,
)
from harness.kinds.method import Check
from harness.kinds.pruning.base import PROMPT_CAUSALITY, EvictionMethod, PruningMethod
from harness.kinds.pruning.highest import assert_highest
from harness.kinds.pruning.select_checks import selection_checks
from harness.kinds.pruning.selecting import SelectionMethod
from harness.subjects.cache import KVCache
from harness.subjects.requests import GenerateRequest, ScoreRequest
from harness.subjects.runner import Runner, pad_left
from harness.subjects.subject import Subject
from harness.subjects.views import Drop, Keep, LayerView

LENGTHS = (48, 21, 6)
SMALLEST_RATIO = 1e-6
SPREAD = 10.0
"""Roundings of a whole forward against one of its embeddings."""

Kept = list[list[list[list[int]]]]
"""Positions in the text that are held, by layer, row and head."""


def kept_positions(cache: KVCache, row: int | None = None) -> Kept:
    """What a pruned cache holds, of all rows or of one, in the order of the text."""
    kept = []
    for layer in cache.layers:
        position_BHN = layer.position.expand(-1, layer.keys.shape[1], -1)
        valid_BHN = torch.ones_like(position_BHN, dtype=torch.bool) if layer.valid is None else layer.valid
        rows = range(len(position_BHN)) if row is None else [row]
        both = [(position_BHN[b], valid_BHN[b].expand_as(position_BHN[b])) for b in rows]
        kept.append([[sorted(p[v].tolist()) for p, v in zip(*pair, strict=True)] for pair in both])
    return kept


def expected_budget(keep_ratio: float, n: int) -> int:
    """Slots kept of ``n``."""
    return max(1, math.floor(keep_ratio * n + 1e-9))


def evicts(subject: Subject) -> bool:
    """Whether the open subject's cache drops slots (a method may prune by selecting instead)."""
    return getattr(subject.new_cache, "keywords", {}).get("evict") is not None


@dataclass
class _Checks:
    """One method and one subject; every check opens the method anew."""

    method: PruningMethod
    given: Subject

    @cached_property
    def subject(self) -> Subject:
        return float32_twin(self.given)

    @cached_property
    def prompts(self) -> list[list[int]]:
        return [random_ids(self.subject, n, seed) for seed, n in enumerate(LENGTHS)]

    @cached_property
    def forced(self) -> list[list[int]]:
        return [random_ids(self.subject, 4, 10 + seed) for seed in range(len(LENGTHS))]

    @contextmanager
    def opened(self, **params: Any) -> Iterator[Subject]:
        """The method, with other parameters where given, applied to the float32 subject."""
        method = replace(cast(Any, self.method), **params) if params else self.method
        with method.apply(self.subject) as pruned, torch.inference_mode():
            yield pruned

    def prefilled(self, pruned: Subject, prompts: list[list[int]]) -> KVCache:
        runner = Runner(pruned.model, pruned.new_cache)
        runner.prefill(prompts)
        return runner.cache

    def identity(self) -> None:
        """At the card's identity the logits are the baseline's."""
        base = forced_logits(self.subject, self.prompts, self.forced)
        with self.opened(**dict(self.method.card.identity or {})) as pruned:
            assert_close("identity setting", forced_logits(pruned, self.prompts, self.forced), base)

    def budget(self) -> None:
        """The budget is held after the prompt (and while decoding, where declared), and the rest is really freed."""
        ratio = getattr(self.method, "keep_ratio", None)
        with self.opened() as pruned:
            if ratio is None or not evicts(pruned):
                return
            for n in (1, 2, 9, LENGTHS[0]):
                self._budget_of(pruned, ratio, n)

    def _budget_of(self, pruned: Subject, ratio: float, n: int) -> None:
        steps, budget = 3, expected_budget(ratio, n)
        runner, full = Runner(pruned.model, pruned.new_cache), Runner(self.subject.model, self.subject.new_cache)
        prompt = [random_ids(self.subject, n, n)]
        full.prefill(prompt)
        runner.prefill(prompt)
        layers = len(runner.cache.layers)
        self._assert_held(runner.cache, budget, f"after a prompt of {n} tokens")
        slot_bytes = full.cache.held_bytes() / (n * layers)
        allowed = slot_bytes * (sum(layer.length for layer in runner.cache.layers) + 64 * layers)
        if runner.cache.allocated_bytes() > min(allowed, full.cache.allocated_bytes()):
            raise AssertionError(
                f"{runner.cache.allocated_bytes()} bytes are allocated after pruning {n} tokens to {budget}; "
                f"{allowed:.0f} would hold them with room for 64, the full cache has {full.cache.allocated_bytes()}"
            )
        for token in random_ids(self.subject, steps, 5):
            runner.forward(torch.tensor([[token]], device=self.subject.device))
            runner.commit()
        held_while_decoding = getattr(self.method, "while_decoding", False) and ratio < 1
        self._assert_held(runner.cache, budget + (0 if held_while_decoding else steps), f"{steps} tokens later")

    @staticmethod
    def _assert_held(cache: KVCache, budget: int, when: str) -> None:
        """Equal layers hold the budget exactly; layers with budgets of their own hold it on average, rounded down."""
        held = cache.kept_slots()
        uneven = len({layer.length for layer in cache.layers}) > 1
        if not (budget - 1 < held <= budget + 1e-6 if uneven else abs(held - budget) < 1e-6):
            raise AssertionError(f"{held:g} slots are held {when}, the budget is {budget}")

    def batch(self) -> None:
        """A batch of three lengths keeps the same slots and gives the same logits as its rows alone."""
        with self.opened() as pruned:
            together = forced_logits(pruned, self.prompts, self.forced)
            cache = self.prefilled(pruned, self.prompts)
            for row, prompt in enumerate(self.prompts):
                if evicts(pruned):
                    alone = kept_positions(self.prefilled(pruned, [prompt]))
                    self._assert_same(kept_positions(cache, row), alone, f"row of {len(prompt)} tokens in a batch")
                ours = forced_logits(pruned, [prompt], [self.forced[row]])[0]
                allowed = max(TOLERANCE, SPREAD * rounding_error(pruned, prompt, self.forced[row]))
                what = f"row of {len(prompt)} tokens in a batch of {len(self.prompts)}"
                assert_close(what, together[row], ours, allowed)

    @staticmethod
    def _assert_same(ours: Kept, theirs: Kept, what: str) -> None:
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if a != b:
                raise AssertionError(f"{what}: layer {index} keeps {a}, alone {b}")

    def padding(self) -> None:
        """What stands in the padded places changes nothing."""
        ids_BT, valid_BT = pad_left(self.prompts, self.subject.device)
        assert valid_BT is not None
        junk = torch.tensor([random_ids(self.subject, ids_BT.shape[1], 20 + row) for row in range(len(ids_BT))])
        seen: list[Tensor] = []
        with self.opened() as pruned:
            for filled in (ids_BT, torch.where(valid_BT, ids_BT, junk.to(ids_BT.device))):
                runner = Runner(pruned.model, pruned.new_cache)
                logits = [runner.forward(filled, valid_BT=valid_BT)[:, -1]]
                runner.commit(valid_BT=valid_BT)
                logits.append(runner.forward(ids_BT[:, -1:])[:, -1])
                seen.append(torch.stack(logits, 1).float())
        assert_close("other ids in the padding", seen[0], seen[1])

    def prompt_causality(self) -> None:
        """Logits of the prompt's earlier tokens do not change with later ones."""
        prompt, tail = self.prompts[0], random_ids(self.subject, 5, 30)
        with self.opened() as pruned:
            ends = []
            for ids in (prompt, [*prompt[:-5], *tail]):
                runner = Runner(pruned.model, pruned.new_cache)
                ends.append(runner.prefill([ids], all_logits=True)[0, :-5].float())
            assert_close("prompt with another end", ends[0], ends[1])

    def causality(self) -> None:
        """Logits of a decoding forward's earlier tokens do not change with its last."""
        prompt, tail = self.prompts[0], random_ids(self.subject, 5, 30)
        with self.opened() as pruned:
            ends = []
            for last in tail[:2]:
                runner = Runner(pruned.model, pruned.new_cache)
                runner.prefill([prompt])
                ids_BT = torch.tensor([[*tail[:3], last]], device=self.subject.device)
                ends.append(runner.forward(ids_BT)[0, :-1].float())
            assert_close("decoding forward with another last token", ends[0], ends[1])

    def stateless(self) -> None:
        """A request gives the same bits again after another request."""
        with self.opened() as pruned:
            first, _other, again = (forced_logits(pruned, [self.prompts[row]], [self.forced[row]]) for row in (0, 1, 0))
        assert_close("the same request after another", again, first, 0.0)

    def seeded(self) -> None:
        """The same seed gives the same sampled text when the method is opened again."""
        request = GenerateRequest(prompts=self.prompts, max_new_tokens=6, temperature=0.8, seed=3, ignore_eos=True)
        texts = []
        for _ in range(2):
            with self.opened() as pruned:
                texts.append([row.tokens for row in pruned.generate(request)])
        if texts[0] != texts[1]:
            raise AssertionError(f"seed 3 gave {texts[0]}, then {texts[1]}")

    def highest(self) -> None:
        """No dropped slot has a higher score than a kept one, by a plain sort of each head's scores."""
        seen: list[tuple[LayerView, Tensor]] = []
        method = cast(EvictionMethod, self.method)
        spy = copy.copy(method)

        def recorded(view: LayerView) -> Tensor:
            seen.append((view, method.scores(view)))
            return seen[-1][1]

        def judged(view: LayerView) -> Keep | Drop | None:
            seen.clear()
            keep = spy.evict(view)
            if seen and keep is not None:
                assert_highest(*seen[-1], keep)
            return keep

        object.__setattr__(spy, "scores", recorded)
        with self.opened() as pruned:
            if not evicts(pruned):
                return
            watched = functools.partial(cast(Any, pruned.new_cache), evict=judged)
            forced_logits(replace(pruned, new_cache=watched), self.prompts, self.forced)

    def finite(self) -> None:
        """With the smallest budget, and for a prompt of one token, every new token still attends (itself)."""
        smallest = {"keep_ratio": SMALLEST_RATIO} if hasattr(self.method, "keep_ratio") else {}
        for params in ({}, smallest):
            with self.opened(**params) as pruned:
                for prompts in ([self.prompts[0][:1]], [self.prompts[0], self.prompts[0][:1]]):
                    logits = forced_logits(pruned, prompts, self.forced[: len(prompts)])
                    bad = int((~logits.isfinite()).sum())
                    if bad:
                        raise AssertionError(f"{bad} logits are not finite for prompts of {[len(p) for p in prompts]}")

    def scoring(self) -> None:
        """Scores are the log-probabilities that decoding the same tokens would have seen."""
        pairs = [(row, self.forced[row][:length]) for row in (0, 1) for length in (1, 2, 4)]
        requests = [ScoreRequest(context=tuple(self.prompts[row]), continuation=tuple(c)) for row, c in pairs]
        with self.opened() as pruned:
            scores = pruned.score(requests, batch_size=2)
            for (row, tokens), score in zip(pairs, scores, strict=True):
                logp_TV = forced_logits(pruned, [self.prompts[row]], [tokens[:-1]])[0].log_softmax(-1)
                wanted = float(logp_TV.gather(1, torch.tensor(tokens, device=logp_TV.device)[:, None]).sum())
                moved = rounding_error(pruned, self.prompts[row], tokens[:-1])
                if not abs(wanted - score.logprob) < len(tokens) * max(2 * TOLERANCE, SPREAD * moved):
                    raise AssertionError(
                        f"{len(tokens)} tokens score {score.logprob:.5f}; decoding them gives {wanted:.5f}"
                    )


def pruning_checks(method: PruningMethod, subject: Subject) -> Iterable[Check]:
    """All checks of a method; those that ask for what it does not have (an identity, scores) are left out."""
    method = method.check_twin()
    checks = _Checks(method, subject)
    if method.card.identity is not None:
        yield Check("identity equals baseline", checks.identity)
    yield Check("budget is held and memory freed", checks.budget)
    yield Check("batch equals loop", checks.batch)
    yield Check("padding does not leak", checks.padding)
    yield Check(PROMPT_CAUSALITY, checks.prompt_causality)
    yield Check("no decoded token sees a later one", checks.causality)
    yield Check("no state between requests", checks.stateless)
    yield Check("same seed, same result", checks.seeded)
    if isinstance(method, EvictionMethod) and type(method).scores is not EvictionMethod.scores:
        yield Check("the highest scores stay", checks.highest)
    if isinstance(method, SelectionMethod):
        yield from selection_checks(method, checks.subject)
    yield Check("every token attends", checks.finite)
    yield Check("scoring agrees with decoding", checks.scoring)
    yield from restoration_checks(method, subject)
