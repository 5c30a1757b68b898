"""Log-likelihoods with the context prefilled first, so that eviction acts as it does in generation.

Requests with the same context share one prefill, and a one-token continuation needs no second forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.subjects.requests import Score, ScoreRequest
from harness.subjects.runner import Runner

if TYPE_CHECKING:
    from harness.subjects.subject import Subject


def _batches(order: Sequence[tuple[int, ...]], size: int) -> Iterator[Sequence[tuple[int, ...]]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def judge(logits_TV: Tensor, tokens: Sequence[int]) -> Score:
    """Score of tokens under the rows of logits that predict them."""
    target = torch.tensor(tokens, device=logits_TV.device)
    total, greedy = 0.0, True
    # In chunks: a long text times a large vocabulary in float32 would be gigabytes.
    for logits, wanted in zip(logits_TV.split(256), target.split(256), strict=True):
        exact = logits.float()
        total += float((exact.gather(-1, wanted[:, None])[:, 0] - exact.logsumexp(-1)).sum())
        greedy = greedy and bool((exact.argmax(-1) == wanted).all())
    return Score(total, greedy)


def places_by_context(requests: Sequence[ScoreRequest]) -> dict[tuple[int, ...], list[int]]:
    """Which requests continue each context, so that it is read once for all of them."""
    places: dict[tuple[int, ...], list[int]] = {}
    for index, request in enumerate(requests):
        places.setdefault(request.context, []).append(index)
    return places


class CausalScorer:
    """Scores by forwards of the subject's model through the subject's cache."""

    def score(self, subject: Subject, requests: Sequence[ScoreRequest], batch_size: int) -> list[Score]:
        """Scores in the order of the requests; contexts are batched by length, longest first."""
        by_context = places_by_context(requests)
        scores: dict[int, Score] = {}
        order = sorted(by_context, key=len, reverse=True)
        for contexts in _batches(order, batch_size):
            runner = Runner(subject.model, subject.new_cache)
            places = [by_context[context] for context in contexts]
            scores |= self.score_after(runner, runner.prefill(contexts), requests, places, batch_size)
        return [scores[i] for i in range(len(requests))]

    def score_after(
        self,
        runner: Runner,
        last_BV: Tensor,
        requests: Sequence[ScoreRequest],
        places: Sequence[Sequence[int]],
        batch_size: int,
    ) -> dict[int, Score]:
        """Scores of the requests at ``places`` of each row of a prefilled runner, whose last logits are ``last_BV``."""
        scores: dict[int, Score] = {}
        longer: list[tuple[int, int]] = []
        for row, of_row in enumerate(places):
            for index in of_row:
                tokens = requests[index].continuation
                if len(tokens) <= 1:
                    scores[index] = judge(last_BV[row : row + 1], tokens) if tokens else Score(0.0, True)
                else:
                    longer.append((row, index))
        longer.sort(key=lambda pair: len(requests[pair[1]].continuation), reverse=True)
        for start in range(0, len(longer), batch_size):
            part = longer[start : start + batch_size]
            branch = runner if len(longer) <= batch_size else runner.fork()
            scores |= self._score_longer(branch, last_BV, requests, part)
        return scores

    @staticmethod
    def _score_longer(
        runner: Runner, last_BV: Tensor, requests: Sequence[ScoreRequest], part: Sequence[tuple[int, int]]
    ) -> dict[int, Score]:
        """Continuations of two tokens or more, padded on the right; their last tokens need no forward."""
        rows = torch.tensor([row for row, _ in part], device=last_BV.device)
        tokens = [requests[index].continuation for _, index in part]
        width = max(len(t) for t in tokens) - 1
        ids = torch.tensor([[*t[:-1], *[0] * (width - len(t) + 1)] for t in tokens], device=last_BV.device)
        if len(rows) != len(last_BV) or rows.tolist() != list(range(len(last_BV))):
            runner.select_rows(rows)
        logits_BTV = CausalScorer._continue(runner, ids)
        return {
            index: judge(torch.cat([last_BV[row][None], logits_BTV[i, : len(tokens[i]) - 1]]), tokens[i])
            for i, (row, index) in enumerate(part)
        }

    @staticmethod
    def _continue(runner: Runner, ids_BT: Tensor) -> Tensor:
        """Logits ``[B, T, V]`` of one forward, or of one a token where the cache changes between them."""
        if not runner.cache.token_by_token:
            return runner.forward(ids_BT)
        logits = []
        for column in ids_BT.split(1, dim=1):
            logits.append(runner.forward(column))
            runner.commit()
        return torch.cat(logits, 1)
