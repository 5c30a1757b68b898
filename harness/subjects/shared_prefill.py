"""One dense prefill for several caches: at long contexts it is most of the work, and it is the same for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harness.errors import Refused
from harness.subjects.cache import KVCache
from harness.subjects.kv_layer import KVLayer
from harness.subjects.requests import Score, ScoreRequest
from harness.subjects.runner import Runner
from harness.subjects.scoring import CausalScorer, places_by_context
from harness.subjects.subject import Subject


class SharedPrefill(KVCache):
    """Reads one prompt densely; each of ``caches`` takes every layer as it is read, and evicts from it on its own."""

    def __init__(self, caches: Sequence[KVCache]) -> None:
        super().__init__(len(caches[0].layers))
        self.caches = caches

    def observe(self, index: int, queries_BHTD: Tensor, scaling: float) -> None:
        """Hand layer ``index`` on, with the prompt's queries."""
        for cache in self.caches:
            layer = self.layers[index].fork()
            if cache.evict is not None:
                layer.position = torch.arange(layer.length, device=queries_BHTD.device)[None, None]
            cache.layers[index] = layer
            cache.observe(index, queries_BHTD, scaling)


def refuse_unshared(subject: Subject) -> None:
    """:class:`Refused` where a plain prefill of the model would not be this subject's own."""
    if any(type(layer) is not KVLayer for layer in subject.new_cache().layers):
        raise Refused(f"{subject.full_name} keeps its slots in another form, so it cannot share a dense prefill")
    if changed := subject.replaced - {"cache"}:
        part = sorted(changed)[0]
        raise Refused(f"{subject.full_name} changes the model's {part}, so it cannot share a dense prefill")


class SharedScorer:
    """Scores a request by all methods when the first of them is asked, and answers the others from memory.

    ``subjects`` are one model after different methods of the kind pruning that read the prompt densely.
    """

    def __init__(self, subjects: Mapping[str, Subject]) -> None:
        for subject in subjects.values():
            refuse_unshared(subject)
        self.subjects = dict(subjects)
        self.known: dict[tuple[str, ScoreRequest], Score] = {}

    def subject(self, name: str) -> Subject:
        """The subject that answers for one method."""
        return replace(self.subjects[name], scorer=self)

    def score(self, subject: Subject, requests: Sequence[ScoreRequest], batch_size: int) -> list[Score]:
        """Scores of the subject's method, in the order of the requests; one context is read at a time."""
        name = next(n for n, one in self.subjects.items() if one.stack == subject.stack)
        missing = [request for request in requests if (name, request) not in self.known]
        for context, places in places_by_context(missing).items():
            self._score_context(context, [missing[place] for place in places], batch_size)
        return [self.known[name, request] for request in requests]

    def _score_context(self, context: tuple[int, ...], requests: Sequence[ScoreRequest], batch_size: int) -> None:
        runners = {name: Runner(one.model, one.new_cache) for name, one in self.subjects.items()}
        model = next(iter(runners.values())).model
        dense = Runner(model, lambda: SharedPrefill([runner.cache for runner in runners.values()]))
        last_BV = dense.prefill([context])
        for name, runner in runners.items():
            runner.cache.commit()
            runner.cache.advance(torch.tensor([len(context)], device=runner.device))
            found = CausalScorer().score_after(runner, last_BV, requests, [range(len(requests))], batch_size)
            self.known |= {(name, requests[place]): score for place, score in found.items()}
