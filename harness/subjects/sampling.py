"""Turns logits into tokens: greedy or sampled, with processors, one random stream for each row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from harness.subjects.requests import GenerateRequest


class Sampler:
    """The decoding rule of a request. Speculative methods call it at every node with that node's own history."""

    def __init__(self, request: GenerateRequest, device: torch.device) -> None:
        self.greedy = request.temperature == 0
        self.chain = list(request.processors)
        if request.repetition_penalty != 1.0:
            self.chain.append(RepetitionPenaltyLogitsProcessor(request.repetition_penalty))
        if not self.greedy:
            if request.temperature != 1.0:
                self.chain.append(TemperatureLogitsWarper(request.temperature))
            if request.top_k:
                self.chain.append(TopKLogitsWarper(request.top_k))
            if request.top_p < 1.0:
                self.chain.append(TopPLogitsWarper(request.top_p))
        self.device = device
        self.forced = request.forced
        self.prompt_lengths = [len(prompt) for prompt in request.prompts]
        row_ids = request.row_ids if request.row_ids is not None else range(len(request.prompts))
        self._generators = [torch.Generator(device).manual_seed(request.seed * 1_000_003 + row) for row in row_ids]

    def processed(self, logits_V: Tensor, history: Sequence[int]) -> Tensor:
        """Logits of one node after all processors and warpers, in float32."""
        scores = logits_V.float()[None]
        if self.chain:
            ids = torch.tensor([list(history)], device=self.device)
            for processor in self.chain:
                scores = processor(ids, scores)
        return scores[0]

    def probabilities(self, logits_V: Tensor, history: Sequence[int]) -> Tensor:
        """The law from which the next token is drawn, ``[V]``; one-hot when greedy."""
        scores = self.processed(logits_V, history)
        if self.greedy:
            return torch.nn.functional.one_hot(scores.argmax(), len(scores)).float()
        return scores.softmax(-1)

    def greedy_picks(self, logits_NV: Tensor) -> list[int] | None:
        """The best token after each of some nodes at once; None where a pick depends on more than its logits."""
        if not self.greedy or self.chain:
            return None
        # In float32 everywhere: a CPU finds the largest bfloat16 four times slower, and ties must fall alike.
        return logits_NV.float().argmax(-1).tolist()  # type: ignore[no-any-return]

    def settle(self, token: int, history: Sequence[int], row: int = 0) -> int:
        """The token itself, or what the request's forced continuation has at this place."""
        if self.forced is None:
            return token
        place = len(history) - self.prompt_lengths[row]
        return self.forced[row][place] if place < len(self.forced[row]) else token

    def uniform(self, row: int = 0) -> float:
        """A number from [0, 1) of the row's random stream."""
        return float(torch.rand((), generator=self._generators[row], device=self.device))

    def draw(self, law_V: Tensor, row: int = 0) -> int:
        """A token drawn from a law, from the row's random stream."""
        return int(torch.multinomial(law_V, 1, generator=self._generators[row]))

    def pick(self, logits_V: Tensor, history: Sequence[int], row: int = 0) -> int:
        """The next token of one row."""
        if self.greedy:
            best = int((self.processed(logits_V, history) if self.chain else logits_V.float()).argmax())
            return self.settle(best, history, row)
        return self.draw(self.probabilities(logits_V, history), row)

    def pick_rows(self, logits_BV: Tensor, histories: Sequence[Sequence[int]]) -> list[int]:
        """The next token of every row."""
        picks = self.greedy_picks(logits_BV)
        if picks is not None:
            return [self.settle(pick, h, row) for row, (pick, h) in enumerate(zip(picks, histories, strict=True))]
        return [self.pick(logits, h, row) for row, (logits, h) in enumerate(zip(logits_BV, histories, strict=True))]
