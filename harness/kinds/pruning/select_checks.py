"""The invariants of methods that select, beside those of every pruning method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch

from harness.kinds.invariants import forced_logits, random_ids
from harness.kinds.method import Check
from harness.kinds.pruning.selecting import SelectionMethod
from harness.subjects.subject import Subject
from harness.subjects.views import QueryView, Selection

LENGTHS = (61, 24, 7)


@dataclass
class SelectChecks:
    """One method and one subject."""

    method: SelectionMethod
    subject: Subject

    @contextmanager
    def recorded(self, seen: list[tuple[QueryView, Selection]]) -> Iterator[Subject]:
        """The open method, whose selections are noted."""
        with self.method.apply(self.subject) as pruned, torch.inference_mode():
            select = cast(Any, pruned.new_cache).keywords["select"]

            def noted(view: QueryView) -> Selection | None:
                chosen = select(view)
                if chosen is not None:
                    seen.append((view, chosen))
                return cast(Selection | None, chosen)

            yield replace(pruned, new_cache=partial(cast(Any, pruned.new_cache), select=noted))

    def sets(self) -> None:
        """Each query reads different slots that it may see, its own among them, and no more than its budget."""
        seen: list[tuple[QueryView, Selection]] = []
        prompts = [random_ids(self.subject, n, seed) for seed, n in enumerate(LENGTHS)]
        with self.recorded(seen) as pruned:
            forced_logits(pruned, prompts, [random_ids(self.subject, 5, 9) for _ in prompts])
        for view, chosen in seen:
            self._assert_set(view, chosen)

    def _assert_set(self, view: QueryView, chosen: Selection) -> None:
        index = chosen.index_BSTK
        valid = torch.ones_like(index, dtype=torch.bool) if chosen.valid_BSTK is None else chosen.valid_BSTK
        new = index.shape[2]
        for row, sets in enumerate(index):
            for one in range(len(sets)):
                for query in range(new):
                    slots = index[row, one, query][valid[row, one, query].expand(index.shape[-1])].tolist()
                    own = view.num_slots - new + query
                    visible = set(range(own + 1))
                    if view.allowed is not None:
                        allowed = view.allowed[row if len(view.allowed) > 1 else 0, 0, query]
                        visible = set(allowed.nonzero()[:, 0].tolist())
                    budget = int(self.method.budget(torch.tensor([len(visible)])))
                    what = f"layer {view.layer}, row {row}, set {one}, query {query}"
                    if len(set(slots)) != len(slots) or not set(slots) <= visible or own not in slots:
                        raise AssertionError(
                            f"{what} of {view.num_slots} slots reads {sorted(slots)}, its own is {own}"
                        )
                    if len(slots) > max(budget, self.method.least):
                        raise AssertionError(f"{what} reads {len(slots)} slots, the budget is {budget}")


def selection_checks(method: SelectionMethod, subject: Subject) -> Iterator[Check]:
    """What only methods that select can break."""
    yield Check("each query reads its own set", SelectChecks(method, subject).sets)
