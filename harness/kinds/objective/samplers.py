"""What draws the rollout batches of a training, and what the old policy says of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from harness.kinds.objective.batch import RolloutBatch
from harness.kinds.objective.rollouts import chosen_logps, forward_responses, input_ids, sampled_batch
from harness.kinds.objective.stages import masked
from harness.subjects.subject import Subject

if TYPE_CHECKING:
    from harness.kinds.objective.base import ObjectiveMethod


class RolloutSampler(Protocol):
    """Draws one batch an update."""

    def sample(self, step: int, previous: RolloutBatch | None) -> tuple[RolloutBatch, int]:
        """The batch to train on at update ``step``, and how many tokens were generated for it, dropped ones included.

        Problems and noise follow from the seed and ``step``, and from what ``previous`` says, so that a training can
        be taken up again.
        """


@dataclass(frozen=True)
class GroupSampler:
    """``prompts_per_update`` problems with a group of responses each, the same problems for every objective."""

    method: ObjectiveMethod
    subject: Subject
    seed: int

    def sample(self, step: int, previous: RolloutBatch | None) -> tuple[RolloutBatch, int]:
        """Problems follow from seed and step alone."""
        task, rng = self.method.task(), random.Random(f"{self.seed}/{step}")
        generator = torch.Generator(self.subject.device).manual_seed(self.seed * 1_000_003 + step)
        problems = [task.draw(rng) for _ in range(self.method.prompts_per_update)]
        batch = sampled_batch(self.subject, task, problems, self.method.sampling(previous), generator)
        return batch, int(batch.lengths_B.sum())


@torch.no_grad()
def with_old_policy(batch: RolloutBatch, model: Any, method: ObjectiveMethod, critic: Any = None) -> RolloutBatch:
    """The batch with log-probabilities, entropy, and all that the method ``requires`` of the model as it is now."""
    wanted, mask_BT = method.requires, batch.response_mask_BT
    logps_BTV, hidden_BTD = forward_responses(
        model, batch, method.temperature, hidden=critic is not None or "hidden" in wanted
    )
    found: dict[str, Tensor | None] = {
        "old_logps_BT": masked(chosen_logps(logps_BTV, batch.response_ids_BT), mask_BT),
        "entropy_BT": masked(-(logps_BTV.exp() * logps_BTV).sum(-1), mask_BT),
    }
    if "hidden" in wanted:
        found["hidden_BTD"] = hidden_BTD
    if "logps" in wanted:
        found["logps_BTV"] = logps_BTV
    if "attention" in wanted:
        found["attention_BNN"] = attention_maps(model, batch, method.attention_layers(model.config.num_hidden_layers))
    if critic is not None:
        found["values_BT"] = masked(critic(hidden_BTD), mask_BT)
    return replace(batch, **found)  # type: ignore[arg-type]


@contextmanager
def readable_attention(model: Any) -> Iterator[None]:
    """The plain attention that returns its maps; the one before on exit."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def attention_maps(model: Any, batch: RolloutBatch, layers: Sequence[int], rows: int = 16) -> Tensor:
    """Attention ``[B, N, N]`` float32 of prompt and response, the mean over all heads of these layers.

    Rows (queries) of padding hold anything; columns (keys) of left padding are 0. ``rows`` responses go through the
    model at a time, since a map a head and layer is held while they do.
    """
    return torch.cat([maps_LBNN.mean(0) for maps_LBNN in _maps(model, batch, layers, rows)])


def attention_by_layer(model: Any, batch: RolloutBatch, rows: int = 16) -> Tensor:
    """The same of all layers apart, ``[L, B, N, N]``."""
    return torch.cat(list(_maps(model, batch, range(model.config.num_hidden_layers), rows)), 1)


def _maps(model: Any, batch: RolloutBatch, layers: Sequence[int], rows: int) -> Iterator[Tensor]:
    ids_BN, extra = input_ids(batch.prompt_ids_BP, batch.prompt_mask_BP, batch.response_ids_BT)
    with readable_attention(model):
        for start in range(0, len(ids_BN), rows):
            part = {name: value[start : start + rows] for name, value in extra.items()}
            maps = model(
                input_ids=ids_BN[start : start + rows], use_cache=False, output_attentions=True, **part
            ).attentions
            yield torch.stack([maps[layer].float().mean(1) for layer in layers])
