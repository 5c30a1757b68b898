"""The decoding loop of all drafters: propose a tree, forward it once, verify, commit the accepted path."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.kinds.speculative.base import Drafter, DraftTree, Rule, Step, chain, tree_shape
from harness.kinds.speculative.pace import MARGIN, Pace
from harness.kinds.speculative.shadow import Shadow
from harness.kinds.speculative.verify import verify
from harness.kinds.speculative.widths import ALWAYS_FLAT, ContextCosts
from harness.subjects.decode import StopRule, finish_counts, synchronize
from harness.subjects.requests import GenerateRequest, Generation
from harness.subjects.runner import Runner
from harness.subjects.sampling import Sampler
from harness.subjects.subject import Subject


def input_embeddings(tree: DraftTree, ids_BN: Tensor, model: Any) -> Tensor | None:
    """What a tree with embeddings of its own makes the model read, ``[B, N, D]``; None where the ids say all."""
    if tree.soft_MD is None:
        return None
    soft_BND = tree.soft_MD[(-1 - ids_BN).clamp(min=0)]
    return torch.where(ids_BN[..., None] < 0, soft_BND, model.get_input_embeddings()(ids_BN.clamp(min=0)))


@dataclass
class SpeculativeDecoder:
    """Drafts with ``drafter`` and verifies with the subject's model. Rows of a batch are decoded one by one.

    So a batch gives the texts of its rows alone, as tasks ask for them, and takes their time together.

    ``costs`` are the target's measured curves, by which widths and the bound of the speed-up are reckoned. ``rule``
    verifies sampled drafts (None: token matching). With a ``pace`` plain steps take over where drafting costs more than
    it gains; what a free drafter proposes then is compared with the text as it comes, so that it goes on learning.
    """

    rows_in_turn: ClassVar[bool] = True

    drafter: Drafter
    costs: ContextCosts = ALWAYS_FLAT
    rule: Rule | None = None
    pace: Pace | None = None

    def snapshot(self) -> tuple[Any, Pace | None]:
        """What the drafter has learnt so far, and the pace."""
        return self.drafter.snapshot(), self.pace and self.pace.snapshot()

    def restore(self, state: Any) -> None:
        """Put drafter and pace back to a snapshot, so that timed blocks start alike."""
        learnt, pace = state
        self.drafter.restore(learnt)
        if self.pace is not None:
            self.pace.restore(pace)

    def generate(self, subject: Subject, request: GenerateRequest) -> list[Generation]:
        """Continue each prompt; the cache must hold the zoo's layers, pruned or not."""
        sampler = Sampler(request, subject.device)
        rule = StopRule(request, subject.tokenizer)
        start = time.perf_counter()
        return [_Row(self, subject, sampler, rule, row, start).decode(p) for row, p in enumerate(request.prompts)]


@dataclass
class _Row:
    """One row of a request; ``start`` is the request's, so a later row's stamps include the wait for the earlier."""

    decoder: SpeculativeDecoder
    subject: Subject
    sampler: Sampler
    stop: StopRule
    index: int
    start: float
    history: list[int] = field(default_factory=list)

    def decode(self, prompt: Sequence[int]) -> Generation:
        """Prefill and step until the row ends."""
        self.runner = Runner(self.subject.model, self.subject.new_cache)
        self.row = Generation(prompt_tokens=len(prompt), seconds={"draft": 0.0, "verify": 0.0, "observe": 0.0})
        self.history = list(prompt)
        self.drafted = self.plain_steps = 0
        self.cost = 0.0
        self.shadow: Shadow | None = None
        # Halfway through the answer: one curve a request is near enough.
        self.costs = self.decoder.costs.after(len(prompt) + self.stop.limit // 2)
        self.decoder.drafter.costs = self.costs
        self.decoder.drafter.start(prompt, self.sampler, self.index)
        done = self._emit([self.sampler.pick(self.runner.prefill([prompt])[0], self.history, self.index)])
        while not done:
            done = self._step()
        finish_counts(self.row, self.runner)
        self.row.counts |= {"drafted_tokens": self.drafted, "plain_steps": self.plain_steps, "width_cost": self.cost}
        self.row.seconds["draft_forward"] = self.decoder.drafter.forward_s
        return self.row

    def _emit(self, emitted: list[int]) -> bool:
        synchronize(self.subject.device)
        self.history += emitted
        return self.stop.extend(self.row, emitted, time.perf_counter() - self.start)

    def _step(self) -> bool:
        decoder = self.decoder
        began = time.perf_counter()
        draft, rests = self._draft()
        plain = rests or not self._promises(draft)
        tree = chain(self.history[-1], ()) if plain else draft
        cost = self.costs(len(tree.tokens)) + (0.0 if plain else decoder.drafter.price)
        drafted = time.perf_counter()
        emitted, step = self._verify(tree)
        verified = time.perf_counter()
        done = self._emit(emitted)
        if plain:
            self._watch(draft, emitted[0])
        else:
            self._judge(step, cost)
        decoder.drafter.observe(step)
        self.cost += cost
        self._count(tree, (began, drafted, verified, time.perf_counter()))
        return done

    def _draft(self) -> tuple[DraftTree, bool]:
        """What the drafter proposes, and whether drafting rests; a rest shows proposals of a free drafter only."""
        drafter, pace = self.decoder.drafter, self.decoder.pace
        rests = pace is not None and pace.rests()
        if rests and not drafter.free:
            return chain(self.history[-1], ()), True
        return drafter.propose(self.history, self.stop.limit - len(self.row.tokens) - 1), rests

    def _promises(self, draft: DraftTree) -> bool:
        """Whether a draft is worth its width by the drafter's own account; a width that was asked for is held to."""
        if self.decoder.pace is None or draft.promise is None:
            return True
        return draft.promise >= MARGIN * self.costs(len(draft.tokens))

    def _judge(self, step: Step, cost: float) -> None:
        """Tell drafter and pace what became of a draft."""
        drafter, pace, tree = self.decoder.drafter, self.decoder.pace, step.tree
        self.shadow = None
        for node, right in zip(step.path, [*step.path[1:], None], strict=True):
            drafter.judge(tree, node, right)
        if pace is not None and len(tree.tokens) > 1:
            pace.record(len(step.path), cost)

    def _watch(self, draft: DraftTree, token: int) -> None:
        """Compare a draft that is not verified with the token of a plain step; one that began before goes first."""
        pace = self.decoder.pace
        if self.shadow is None and len(draft.tokens) > 1:
            self.shadow = Shadow(draft, self.costs(len(draft.tokens)), self._promises(draft))
        if self.shadow is None:
            return
        shadow, node = self.shadow, self.shadow.node
        over = shadow.follow(token)
        self.decoder.drafter.judge(shadow.tree, node, None if over else shadow.node)
        if over:
            self.shadow = None
            # Drafts that promise too little are never verified: they must not make those rest that would be.
            if pace is not None and shadow.promising:
                pace.record(shadow.emitted, shadow.cost)

    def _count(self, tree: DraftTree, stamps: tuple[float, ...]) -> None:
        self.drafted += sum(token >= 0 for token in tree.tokens) - 1
        self.plain_steps += len(tree.tokens) == 1
        for name, before, after in zip(("draft", "verify", "observe"), stamps, stamps[1:], strict=False):
            self.row.seconds[name] += after - before

    def _verify(self, tree: DraftTree) -> tuple[list[int], Step]:
        """One forward of the tree; returns the tokens it emits and what the drafter may learn from."""
        runner = self.runner
        ids = torch.tensor([tree.tokens], device=runner.device)
        block, depth = (None, None) if tree.is_chain else tree_shape(tree.parents, runner.device)
        embeds = input_embeddings(tree, ids, runner.model)
        logits_NV = runner.forward(ids, block_TM=block, depth_M=depth, embeds_BTD=embeds)[0]
        path, token = verify(tree, logits_NV, self.sampler, self.history, self.index, self.decoder.rule)
        runner.commit(None if len(path) == len(tree.tokens) else torch.tensor(path, device=runner.device))
        return [*(tree.tokens[node] for node in path[1:]), token], Step(tree, logits_NV, tuple(path))
