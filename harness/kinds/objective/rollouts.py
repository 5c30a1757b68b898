"""Samples responses to a verifiable task, grades them, and reads the policy's log-probabilities back."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.errors import Refused
from harness.kinds.objective.batch import RolloutBatch
from harness.subjects.runner import Runner, pad_left
from harness.subjects.subject import Subject
from harness.toolkit.verifiable import VerifiableTask, prompt_ids


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How responses are drawn. ``temper`` turns logits ``[B, V]`` into a temperature a row, ``[B, 1]``."""

    group_size: int
    max_new_tokens: int
    temperature: float
    temper: Callable[[Tensor], Tensor] | None = None

    def law(self, logits_BV: Tensor) -> Tensor:
        """Log-probabilities ``[B, V]`` to draw from."""
        heat = self.temperature if self.temper is None else self.temper(logits_BV)
        return (logits_BV / heat).log_softmax(-1)


def input_ids(
    prompt_ids_BP: Tensor, prompt_mask_BP: Tensor, response_ids_BT: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Prompt and response as one input ``[B, P + T]``, and the mask and positions that left padding asks for."""
    ids_BN = torch.cat([prompt_ids_BP, response_ids_BT], 1)
    if bool(prompt_mask_BP.all()):
        return ids_BN, {}
    mask_BN = torch.cat([prompt_mask_BP, prompt_mask_BP.new_ones(response_ids_BT.shape)], 1)
    return ids_BN, {"attention_mask": mask_BN.long(), "position_ids": (mask_BN.cumsum(1) - 1).clamp(min=0)}


def token_logps(
    model: Any, batch_prompts: tuple[Tensor, Tensor], response_ids_BT: Tensor, temperature: float
) -> Tensor:
    """Log-probabilities of all tokens at each response position, ``[B, T, V]`` float32 (float64 for such a model).

    ``batch_prompts`` are ids ``[B, P]`` and mask, padded on the left. Row ``t`` predicts response token ``t``: it is
    the model's output at input position ``P + t - 1``.
    """
    return _forward(model, *batch_prompts, response_ids_BT, temperature, hidden=False)[0]


def forward_responses(
    model: Any, batch: RolloutBatch, temperature: float, hidden: bool = False
) -> tuple[Tensor, Tensor | None]:
    """:func:`token_logps` of a batch, and where ``hidden`` is asked for the states ``[B, T, D]`` that predict."""
    prompts = (batch.prompt_ids_BP, batch.prompt_mask_BP)
    return _forward(model, *prompts, batch.response_ids_BT, temperature, hidden)


def _forward(
    model: Any,
    prompt_ids_BP: Tensor,
    prompt_mask_BP: Tensor,
    response_ids_BT: Tensor,
    temperature: float,
    hidden: bool,
) -> tuple[Tensor, Tensor | None]:
    ids_BN, extra = input_ids(prompt_ids_BP, prompt_mask_BP, response_ids_BT)
    extra = {name: value[:, :-1] for name, value in extra.items()}
    width = response_ids_BT.shape[1]
    asked = {"output_hidden_states": True} if hidden else {}
    out = model(input_ids=ids_BN[:, :-1], use_cache=False, logits_to_keep=width, **extra, **asked)
    logits_BTV = out.logits if out.logits.dtype == torch.float64 else out.logits.float()
    logps_BTV: Tensor = (logits_BTV / temperature).log_softmax(-1)
    return logps_BTV, out.hidden_states[-1][:, -width:] if hidden else None


def chosen_logps(logps_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    """Of each position, the log-probability of its own token, ``[B, T]``."""
    return logps_BTV.gather(-1, ids_BT[..., None])[..., 0]


@torch.no_grad()
def sample_responses(
    subject: Subject, prompts: Sequence[Sequence[int]], sampling: Sampling, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``group_size`` responses to each prompt, a prompt's responses side by side.

    Returns ids ``[B, T]`` (0 after the end), mask, log-probabilities under the law that drew them, and which rows
    ended by themselves. Rows that have ended ride along until the last one does.
    """
    device = subject.device
    end = torch.tensor(subject.text_tokenizer().eos_ids, device=device)
    runner = Runner(subject.model, subject.new_cache)
    logits_BV = runner.prefill(prompts)
    rows_B = torch.arange(len(prompts), device=device).repeat_interleave(sampling.group_size)
    runner.select_rows(rows_B)
    logits_BV = logits_BV[rows_B]
    open_B = torch.ones(len(rows_B), dtype=torch.bool, device=device)
    ids: list[Tensor] = []
    masks: list[Tensor] = []
    logps: list[Tensor] = []
    for step in range(sampling.max_new_tokens):
        if step:
            logits_BV = runner.forward(ids[-1][:, None])[:, -1]
            runner.commit()
        logp_BV = sampling.law(logits_BV.float())
        picked_B = torch.multinomial(logp_BV.exp(), 1, generator=generator)[:, 0].masked_fill(~open_B, 0)
        ids.append(picked_B)
        masks.append(open_B)
        logps.append(logp_BV.gather(1, picked_B[:, None])[:, 0])
        open_B = open_B & ~torch.isin(picked_B, end)
        if not bool(open_B.any()):
            break
    mask_BT = torch.stack(masks, 1)
    return torch.stack(ids, 1), mask_BT, torch.stack(logps, 1).masked_fill(~mask_BT, 0.0), ~open_B


def encoded_prompts(subject: Subject, task: VerifiableTask, problems: Sequence[Any], room: int) -> list[list[int]]:
    """The problems' ids; refuses a subject whose longest text cannot hold prompt and response."""
    prompts = [prompt_ids(subject, task, problem) for problem in problems]
    longest = max(map(len, prompts)) + room
    if longest > subject.max_length:
        raise Refused(f"prompt and response need {longest} tokens; {subject.name} holds {subject.max_length}")
    return prompts


def repeated(items: Sequence[Any], times: int) -> list[Any]:
    """Each item so many times, its copies side by side."""
    return [item for item in items for _ in range(times)]


def padded_prompts(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids ``[B, P]`` padded on the left, and the mask of real tokens."""
    ids_BP, valid_BP = pad_left(prompts, device)
    return ids_BP, torch.ones_like(ids_BP, dtype=torch.bool) if valid_BP is None else valid_BP


def padded_responses(subject: Subject, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Ids ``[B, T]`` of texts with their end, padded on the right, and the mask of real tokens."""
    tokenizer = subject.text_tokenizer()
    rows = [[*tokenizer.encode(text), *tokenizer.eos_ids[:1]] for text in texts]
    width = max(map(len, rows))
    length_B = torch.tensor([len(row) for row in rows], device=subject.device)
    ids_BT = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=subject.device)
    return ids_BT, torch.arange(width, device=subject.device)[None] < length_B[:, None]


def sampled_batch(
    subject: Subject, task: VerifiableTask, problems: Sequence[Any], sampling: Sampling, generator: torch.Generator
) -> RolloutBatch:
    """Sample and grade a group of responses to each problem. Old log-probabilities are still missing (all 0)."""
    prompts = encoded_prompts(subject, task, problems, sampling.max_new_tokens)
    ids_BT, mask_BT, logp_BT, finished_B = sample_responses(subject, prompts, sampling, generator)
    size = sampling.group_size
    owners, asked = repeated(problems, size), padded_prompts(repeated(prompts, size), subject.device)
    return graded_batch(subject, task, owners, asked, ids_BT, mask_BT, logp_BT, finished_B, size)


def written_batch(subject: Subject, task: VerifiableTask, groups: int, group_size: int, seed: int) -> RolloutBatch:
    """A batch of responses that the task wrote: the same problems and texts for every model and objective."""
    rng = random.Random(seed)
    problems = [task.draw(rng) for _ in range(groups)]
    owners = repeated(problems, group_size)
    ids_BT, mask_BT = padded_responses(subject, [task.written(problem, rng) for problem in owners])
    prompts = encoded_prompts(subject, task, problems, ids_BT.shape[1])
    asked = padded_prompts(repeated(prompts, group_size), subject.device)
    finished_B = torch.ones(len(owners), dtype=torch.bool, device=subject.device)
    return graded_batch(
        subject, task, owners, asked, ids_BT, mask_BT, torch.zeros_like(ids_BT).float(), finished_B, group_size
    )


def graded_batch(
    subject: Subject,
    task: VerifiableTask,
    owners: Sequence[Any],
    asked: tuple[Tensor, Tensor],
    ids_BT: Tensor,
    mask_BT: Tensor,
    logp_BT: Tensor,
    finished_B: Tensor,
    group_size: int,
) -> RolloutBatch:
    """Decode, grade and put together; ``asked`` are the owners' padded prompts, ``group_size`` neighbours a group."""
    tokenizer = subject.text_tokenizer()
    ends = set(tokenizer.eos_ids)
    rows = [
        [i for i in ids[:n] if i not in ends] for ids, n in zip(ids_BT.tolist(), mask_BT.sum(1).tolist(), strict=True)
    ]
    rewards = [task.reward(problem, tokenizer.decode(row)) for problem, row in zip(owners, rows, strict=True)]
    return RolloutBatch(
        prompt_ids_BP=asked[0],
        prompt_mask_BP=asked[1],
        response_ids_BT=ids_BT,
        response_mask_BT=mask_BT,
        behavior_logps_BT=logp_BT,
        old_logps_BT=torch.zeros_like(logp_BT),
        entropy_BT=torch.zeros_like(logp_BT),
        rewards_B=torch.tensor(rewards, dtype=torch.float32, device=subject.device),
        group_ids_B=torch.arange(len(owners), device=subject.device) // group_size,
        finished_B=finished_B,
    )
