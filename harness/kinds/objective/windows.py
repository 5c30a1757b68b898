"""Rollouts in windows: every slot writes a few tokens, the policy is updated, and unfinished responses go on."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.errors import Refused
from harness.kinds.objective.base import ObjectiveMethod
from harness.kinds.objective.batch import RolloutBatch
from harness.kinds.objective.rollouts import encoded_prompts, graded_batch, padded_prompts, sample_responses
from harness.subjects.subject import Subject


@dataclass(frozen=True)
class WindowSampler:
    """``prompts_per_update * group_size`` slots of which each writes up to ``window`` tokens an update.

    A response is done when it ends or has ``max_new_tokens``; its slot then gets a new problem. What goes on is in the
    batch before, and a problem follows from the seed and its number, which is the group's id; nothing else is kept.
    The cache is built again for each window, since the policy has changed. With ``window >= max_new_tokens`` the
    batches are those of a sampler of whole groups.
    """

    method: ObjectiveMethod
    subject: Subject
    seed: int
    window: int

    def __post_init__(self) -> None:
        longest = self.method.max_new_tokens
        if longest % self.window:
            raise Refused(
                f"windows of {self.window} tokens do not divide max_new_tokens={longest}; choose another window"
            )

    def problem(self, number: int) -> Any:
        """The problem of this number."""
        step, place = divmod(number, self.method.prompts_per_update)
        rng, task = random.Random(f"{self.seed}/{step}"), self.method.task()
        return [task.draw(rng) for _ in range(place + 1)][-1]

    def sample(self, step: int, previous: RolloutBatch | None) -> tuple[RolloutBatch, int]:
        """Responses that go on first, then new ones; the new tokens are counted."""
        method, device = self.method, self.subject.device
        old = None if previous is None else previous.rows((~previous.over_B).nonzero()[:, 0])
        going = 0 if old is None else old.size
        free = method.prompts_per_update * method.group_size - going
        first = step * method.prompts_per_update
        numbers = [] if old is None else old.group_ids_B.tolist()
        numbers += [first + slot // method.group_size for slot in range(free)]
        problems = {number: self.problem(number) for number in set(numbers)}
        owners = [problems[number] for number in numbers]
        prompts = encoded_prompts(self.subject, method.task(), owners, method.max_new_tokens)
        written = [] if old is None else _valid_rows(old.response_ids_BT, old.response_mask_BT)
        written += [[] for _ in range(free)]
        sampling = replace(method.sampling(previous), group_size=1, max_new_tokens=self.window)
        generator = torch.Generator(device).manual_seed(self.seed * 1_000_003 + step)
        contexts = [[*prompt, *before] for prompt, before in zip(prompts, written, strict=True)]
        ids_BW, mask_BW, logp_BW, ended_B = sample_responses(self.subject, contexts, sampling, generator)
        before_B = torch.tensor([len(row) for row in written], device=device)
        if old is None:
            ids_BT, mask_BT, logp_BT = ids_BW, mask_BW, logp_BW
        else:
            ids_BT, mask_BT, logp_BT = (
                _appended(_with_empty(part, free), new, before_B, mask_BW)
                for part, new in (
                    (old.response_ids_BT, ids_BW),
                    (old.response_mask_BT, mask_BW),
                    (old.behavior_logps_BT, logp_BW),
                )
            )
        asked = padded_prompts(prompts, device)
        done_B = ended_B | (mask_BT.sum(1) >= method.max_new_tokens)
        batch = graded_batch(self.subject, method.task(), owners, asked, ids_BT, mask_BT, logp_BT, ended_B, 1)
        batch = replace(
            batch,
            rewards_B=torch.where(done_B, batch.rewards_B, torch.zeros_like(batch.rewards_B)),
            group_ids_B=torch.tensor(numbers, device=device),
            fresh_BT=torch.arange(ids_BT.shape[1], device=device)[None] >= before_B[:, None],
            done_B=done_B,
        )
        return batch, int(mask_BW.sum())


def _valid_rows(ids_BT: Tensor, mask_BT: Tensor) -> list[list[int]]:
    return [row[:n] for row, n in zip(ids_BT.tolist(), mask_BT.sum(1).tolist(), strict=True)]


def _with_empty(value_BT: Tensor, rows: int) -> Tensor:
    return torch.cat([value_BT, value_BT.new_zeros(rows, value_BT.shape[1])])


def _appended(old_BT: Tensor, new_BW: Tensor, before_B: Tensor, mask_BW: Tensor) -> Tensor:
    """New values behind the ``before_B`` old ones of each row, as wide as the longest row needs."""
    width = int((before_B + mask_BW.sum(1)).max())
    grown_BT = old_BT.new_zeros(len(old_BT), max(width, old_BT.shape[1]))
    grown_BT[:, : old_BT.shape[1]] = old_BT
    row_N, place_N = mask_BW.nonzero(as_tuple=True)
    grown_BT[row_N, before_B[row_N] + place_N] = new_BW[mask_BW]
    return grown_BT[:, :width]
