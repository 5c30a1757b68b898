"""The decoding loop of all drafters: propose a tree, forward it once, verify, commit the accepted path."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from harness.kinds.speculative.base import Drafter, DraftTree, Step, ancestors
from harness.subjects.decode import StopRule, finish_counts, synchronize
from harness.subjects.requests import GenerateRequest, Generation
from harness.subjects.runner import Runner
from harness.subjects.sampling import Sampler
from harness.subjects.subject import Subject


def verify(
    tree: DraftTree, logits_NV: Tensor, sampler: Sampler, history: Sequence[int], row: int = 0
) -> tuple[list[int], int]:
    """Token matching: at each node draw what the target would emit, and descend while a child carries it.

    Exact for any drafter, greedy and sampled, since every emitted token is drawn from the target's own law.
    ``history`` ends with the root. Returns the accepted nodes (root first) and the token that follows them.
    """
    picks = logits_NV.float().argmax(-1).tolist() if sampler.greedy and not sampler.chain else None
    path, grown = [0], list(history)
    while True:
        node = path[-1]
        token = picks[node] if picks is not None else sampler.pick(logits_NV[node], grown, row)
        matching = [child for child in tree.children[node] if tree.tokens[child] == token]
        if not matching:
            return path, token
        path.append(matching[0])
        grown.append(token)


@lru_cache(maxsize=64)
def _shape(parents: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Mask and depth of a tree's shape; methods use few shapes, so they are made once."""
    depth = DraftTree((0,) * len(parents), parents).depth
    return ancestors(parents, device), torch.tensor(depth, device=device)


@dataclass
class SpeculativeDecoder:
    """Drafts with ``drafter`` and verifies with the subject's model. Rows of a batch are decoded one by one."""

    drafter: Drafter

    def snapshot(self) -> object:
        """What the drafter has learnt so far."""
        return self.drafter.snapshot()

    def restore(self, state: object) -> None:
        """Put the drafter back to a snapshot, so that timed blocks start alike."""
        self.drafter.restore(state)

    def generate(self, subject: Subject, request: GenerateRequest) -> list[Generation]:
        """Continue each prompt; the cache must hold the zoo's layers, pruned or not."""
        sampler = Sampler(request, subject.device)
        rule = StopRule(request, subject.tokenizer)
        start = time.perf_counter()
        return [self._one(subject, prompt, sampler, rule, row, start) for row, prompt in enumerate(request.prompts)]

    def _one(
        self, subject: Subject, prompt: Sequence[int], sampler: Sampler, rule: StopRule, index: int, start: float
    ) -> Generation:
        """Decode one row; ``start`` is the request's, so a later row's stamps include the wait for the earlier."""
        runner = Runner(subject.model, subject.new_cache)
        row = Generation(prompt_tokens=len(prompt), seconds={"draft": 0.0, "verify": 0.0})
        history = list(prompt)
        self.drafter.start(prompt)
        emitted = [sampler.pick(runner.prefill([prompt])[0], history, index)]
        synchronize(subject.device)
        done = rule.extend(row, emitted, time.perf_counter() - start)
        history += emitted
        drafted_tokens = 0
        while not done:
            before = time.perf_counter()
            tree = self.drafter.propose(history, rule.limit - len(row.tokens) - 1)
            middle = time.perf_counter()
            emitted, step = self._verify(runner, tree, sampler, history, index)
            synchronize(subject.device)
            now = time.perf_counter()
            row.seconds["draft"] += middle - before
            row.seconds["verify"] += now - middle
            done = rule.extend(row, emitted, now - start)
            history += emitted
            drafted_tokens += len(tree.tokens) - 1
            self.drafter.observe(step)
        finish_counts(row, runner)
        row.counts["drafted_tokens"] = drafted_tokens
        return row

    @staticmethod
    def _verify(
        runner: Runner, tree: DraftTree, sampler: Sampler, history: Sequence[int], index: int
    ) -> tuple[list[int], Step]:
        """One forward of the tree; returns the tokens it emits and what the drafter may learn from."""
        ids = torch.tensor([tree.tokens], device=runner.device)
        block, depth = (None, None) if tree.is_chain else _shape(tree.parents, runner.device)
        logits_NV = runner.forward(ids, block_TT=block, depth_T=depth)[0]
        path, token = verify(tree, logits_NV, sampler, history, index)
        runner.commit(None if len(path) == len(tree.tokens) else torch.tensor(path, device=runner.device))
        return [*(tree.tokens[node] for node in path[1:]), token], Step(tree, logits_NV, tuple(path))
