"""Where drafts come from: a model that runs ahead of the target, one tree at a time.

How a draft is written says :mod:`harness.toolkit.small_models`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harness.kinds.method import Artifact, PrepareContext
from harness.kinds.speculative.base import Drafter, SpeculativeMethod, Step, tree_shape
from harness.kinds.speculative.pace import Acceptance
from harness.kinds.speculative.widths import width_costs
from harness.subjects.runner import Runner
from harness.subjects.sampling import Sampler
from harness.subjects.subject import Subject
from harness.toolkit.small_models import is_made, open_small


class DraftModel:
    """A model one tree ahead of the target: it catches up with the text, then grows a tree level by level.

    :meth:`root` and :meth:`grow` return logits. :meth:`keep` then keeps what was accepted, so that only the rest is
    forwarded again.
    """

    def __init__(self, draft: Subject, target: Subject) -> None:
        self.draft = draft
        # Prices are those after a short text: for both models, so their ratio hardly depends on it.
        self.costs, self.unit_s = width_costs(draft).after(0), width_costs(target).after(0).seconds_of(1)
        self.start()

    def start(self) -> None:
        """A new text. Nothing is forwarded before the first draft is asked for."""
        self.runner: Runner | None = None
        self.held = 0
        self.spent_s = 0.0
        self._clear()

    def _clear(self) -> None:
        """No tree: the root alone, which is in the cache already."""
        self.parents, self.place = [-1], {0: 0}

    @property
    def price(self) -> float:
        """Cost of the forwards since the last :meth:`root`, in plain steps of the target, by the measured curves."""
        return self.spent_s / self.unit_s

    @property
    def token_price(self) -> float:
        """Cost of drafting one token of a chain, in plain steps of the target."""
        return self.costs.seconds_of(1) / self.unit_s

    def reach(self, history: Sequence[int], room: int) -> int:
        """How many tokens may be drafted after the text: within ``room`` and the draft's context."""
        return min(max(room, 0), self.draft.max_length - len(history))

    def root(self, history: Sequence[int]) -> Tensor:
        """Logits ``[V]`` after the text, of which what the cache lacks is forwarded first."""
        self._clear()
        missing = list(history[self.held :])
        if self.runner is None:
            self.runner = Runner(self.draft.model, self.draft.new_cache)
            logits = self.runner.prefill([missing])[0]
        else:
            ids = torch.tensor([missing], device=self.runner.device)
            logits = self.runner.forward(ids, logits_to_keep=1)[0, -1]
            self.runner.commit()
        self.spent_s = self.costs.seconds_of(len(missing)) if self.held else 0.0
        self.held = len(history)
        return logits

    def grow(self, tokens: Sequence[int], parents: Sequence[int], nodes: Sequence[int] | None = None) -> Tensor:
        """Logits ``[m, V]`` after new nodes whose parents have been grown (0 is the root).

        ``nodes`` are their numbers in the tree; without them they are numbered on.
        """
        assert self.runner is not None
        first = len(self.parents)
        self.place |= {node: first + i for i, node in enumerate(nodes or range(first, first + len(tokens)))}
        self.parents += [self.place[parent] for parent in parents]
        device, parents_so_far = self.runner.device, tuple(self.parents)
        seen, depth = tree_shape(parents_so_far, device)
        line = parents_so_far == tuple(range(-1, len(parents_so_far) - 1))
        logits = self.runner.forward(
            torch.tensor([list(tokens)], device=device),
            # The root is committed already: masks and depths count from its children on.
            block_TM=None if line else seen[first:, 1:],
            depth_M=depth[1:] - 1,
        )
        self.spent_s += self.costs.seconds_of(len(tokens))
        return logits[0]

    def keep(self, step: Step) -> None:
        """Keep the accepted nodes that were forwarded, and drop the others. What was spent is settled by then."""
        self.spent_s = 0.0
        if len(self.parents) == 1 or self.runner is None:
            return
        kept = [self.place[node] - 1 for node in step.path[1:] if node in self.place]
        self.runner.commit(torch.tensor(kept, dtype=torch.long, device=self.runner.device))
        self.held += len(kept)
        self._clear()


class ModelDrafter(Drafter):
    """A drafter with a draft model: what is common to chains and trees. A subclass overrides :meth:`propose`."""

    def __init__(self, model: DraftModel) -> None:
        self.model = model

    @property
    def price(self) -> float:  # type: ignore[override]
        """What the draft's forwards cost."""
        return self.model.price

    @property
    def forward_s(self) -> float:  # type: ignore[override]
        """Time in the draft's forwards."""
        return self.model.runner.counts.forward_s if self.model.runner else 0.0

    def start(self, prompt: Sequence[int], sampler: Sampler, row: int) -> None:
        """A new text and the rule by which it is decoded."""
        self.model.start()
        self.sampler, self.row = sampler, row

    def observe(self, step: Step) -> None:
        """Keep what was accepted."""
        self.model.keep(step)


class DepthDrafter(ModelDrafter):
    """A drafter whose depth follows how deep drafts were accepted of late."""

    def __init__(self, model: DraftModel) -> None:
        super().__init__(model)
        self.acceptance = Acceptance()

    def observe(self, step: Step) -> None:
        """Keep what was accepted, and count how deep it went."""
        super().observe(step)
        self.acceptance.observe(max(step.tree.depth), len(step.path) - 1)

    def snapshot(self) -> Acceptance:
        """What was accepted of late."""
        return self.acceptance.snapshot()

    def restore(self, state: Acceptance) -> None:
        """Go back to a snapshot."""
        self.acceptance.restore(state)


class DraftedMethod(SpeculativeMethod):
    """A method with a field ``draft``. A subclass overrides :meth:`drafter` and may call :meth:`draft_model`."""

    draft: str

    @property
    def trains(self) -> bool:  # type: ignore[override]
        """Whether the draft must be made first."""
        return is_made(self.draft)

    def prepare(self, subject: Subject, ctx: PrepareContext) -> Artifact:
        """The artifact of the method that makes the draft."""
        return ctx.artifact_of(self.draft)

    def check_twin(self) -> SpeculativeMethod:
        """Checked with a draft that needs no training, often right and often wrong: the target with some noise."""
        return replace(self, draft="noised:0.1") if self.trains else self  # type: ignore[type-var]

    def draft_model(self, subject: Subject, artifact: Artifact) -> DraftModel:
        """The opened draft, ready to run ahead of the subject."""
        return DraftModel(open_small(self.draft, subject, artifact), subject)
