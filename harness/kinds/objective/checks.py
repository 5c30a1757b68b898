"""Invariants of every objective: on random batches without a model, and on a training of two updates."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import Refused
from harness.kinds.invariants import Interrupted, fingerprint
from harness.kinds.method import Check, PrepareContext
from harness.kinds.objective.base import ObjectiveMethod
from harness.kinds.objective.batch import RolloutBatch
from harness.kinds.objective.frozen import frozen_loss, frozen_stages
from harness.subjects.load import load_subject
from harness.subjects.subject import Subject
from harness.toolkit.verifiable import ToyTask

SMALL_BUDGET: dict[str, Any] = {
    "updates": 2,
    "prompts_per_update": 2,
    "group_size": 4,
    "max_new_tokens": 6,
    "minibatches": 2,
}
TIGHT = 1e-10
"""Allowed difference in float64 between two orders of the same sums."""


def random_batch(seed: int = 0, sizes: tuple[int, ...] = (4, 5, 3), width: int = 7) -> RolloutBatch:
    """A float64 batch of groups of unequal size, mixed in order, with lengths from 1 to ``width`` and 0/1 rewards.

    Every group but the last has both rewards.
    """
    rng = torch.Generator().manual_seed(seed)
    group_B = torch.cat([torch.full((n,), g) for g, n in enumerate(sizes)])
    reward_B = torch.cat(
        [torch.zeros(n) if g == len(sizes) - 1 else (torch.arange(n) % 2).float() for g, n in enumerate(sizes)]
    )
    order_B = torch.randperm(len(group_B), generator=rng)
    total = len(group_B)
    length_B = torch.randint(1, width + 1, (total,), generator=rng)
    length_B[0] = width
    mask_BT = torch.arange(width)[None] < length_B[:, None]
    old_BT = -torch.rand(total, width, generator=rng, dtype=torch.float64) * 3
    return RolloutBatch(
        prompt_ids_BP=torch.ones(total, 2, dtype=torch.long),
        prompt_mask_BP=torch.ones(total, 2, dtype=torch.bool),
        response_ids_BT=torch.randint(0, 9, (total, width), generator=rng),
        response_mask_BT=mask_BT,
        behavior_logps_BT=old_BT.clone(),
        old_logps_BT=old_BT,
        entropy_BT=torch.rand(total, width, generator=rng, dtype=torch.float64),
        rewards_B=reward_B[order_B].double(),
        group_ids_B=group_B[order_B],
        finished_B=length_B < width,
        **random_signals(total, width, rng),
    )


def random_signals(total: int, width: int, rng: torch.Generator) -> dict[str, Tensor]:
    """What only some objectives read: states of 4 numbers, laws over 9 tokens, attention, values, other models."""
    prompt, states, vocabulary = 2, 4, 9
    place = prompt + width
    attention = torch.rand(total, place, place, generator=rng, dtype=torch.float64).tril()
    return {
        "hidden_BTD": torch.randn(total, width, states, generator=rng, dtype=torch.float64),
        "logps_BTV": torch.randn(total, width, vocabulary, generator=rng, dtype=torch.float64).log_softmax(-1),
        "attention_BNN": attention / attention.sum(-1, keepdim=True),
        "values_BT": torch.rand(total, width, generator=rng, dtype=torch.float64),
        "reference_logps_BT": -torch.rand(total, width, generator=rng, dtype=torch.float64) * 3,
        "guide_logps_BT": -torch.rand(total, width, generator=rng, dtype=torch.float64) * 3,
    }


def moved_logps(batch: RolloutBatch, seed: int = 1) -> Tensor:
    """Log-probabilities some steps away from the old ones, so that part of the ratios is clipped."""
    noise = torch.randn(batch.old_logps_BT.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (batch.old_logps_BT + 0.3 * noise).detach().requires_grad_()


def loss_and_gradient(method: ObjectiveMethod, batch: RolloutBatch, logp_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The method's loss on a batch halfway through training, and its derivative by the log-probabilities."""
    loss = frozen_loss(method, frozen_stages(method, batch, 0.5), logp_BT)
    (gradient_BT,) = torch.autograd.grad(loss, logp_BT)
    return loss.detach(), gradient_BT


def assert_near(what: str, ours: Tensor, theirs: Tensor, tolerance: float = TIGHT) -> None:
    """Raise with the largest difference where it exceeds the tolerance or is not a number."""
    error = float((ours - theirs).abs().max())
    if not error <= tolerance:
        raise AssertionError(f"{what}: differs by {error:.3g} (allowed {tolerance:.3g})")


def widened(batch: RolloutBatch, extra: int, junk: float) -> RolloutBatch:
    """The batch with ``extra`` more padded positions, filled with junk."""

    def pad(value: Tensor, dims: tuple[int, ...]) -> Tensor:
        fill = 0.0 if value.dtype in (torch.bool, torch.long) else junk
        for dim in dims:
            shape = [*value.shape]
            shape[dim] = extra
            value = torch.cat([value, value.new_full(shape, fill)], dim)
        return value

    grows = {"T": (1,), "N": (1, 2)}
    held = {f.name: (getattr(batch, f.name), grows.get(f.name.rpartition("_B")[2][:1])) for f in fields(batch)}
    return replace(
        batch, **{name: pad(value, dims) for name, (value, dims) in held.items() if dims and value is not None}
    )


class HashTask(ToyTask):
    """The problems of ``chain_sum`` with rewards that any model earns now and then: by a hash of the response."""

    def reward(self, problem: tuple[int, ...], response: str) -> float:
        """0 or 1, about as often."""
        return float(zlib.crc32(response.encode()) % 2)


@dataclass(frozen=True)
class _Checks:
    method: ObjectiveMethod
    subject: Subject

    def padding(self) -> None:
        """Longer padding, whatever it holds, changes neither loss nor gradient."""
        batch = random_batch()
        logp_BT = moved_logps(batch)
        wide_BT = torch.cat([logp_BT.detach(), torch.full((batch.size, 3), -40.0)], 1).requires_grad_()
        loss, gradient_BT = loss_and_gradient(self.method, batch, logp_BT)
        wide_loss, wide_gradient_BT = loss_and_gradient(self.method, widened(batch, 3, 5.0), wide_BT)
        assert_near("loss with longer padding", wide_loss, loss)
        assert_near("gradient with longer padding", wide_gradient_BT[:, :-3], gradient_BT)
        assert_near("gradient of padding", wide_gradient_BT[:, -3:], torch.zeros(batch.size, 3))

    def order(self) -> None:
        """Responses in another order, also across groups: the same loss, the gradient in the new order."""
        batch = random_batch()
        order_B = torch.randperm(batch.size, generator=torch.Generator().manual_seed(3))
        logp_BT = moved_logps(batch)
        loss, gradient_BT = loss_and_gradient(self.method, batch, logp_BT)
        shuffled = logp_BT.detach()[order_B].requires_grad_()
        other, other_BT = loss_and_gradient(self.method, batch.rows(order_B), shuffled)
        assert_near("loss in another order", other, loss)
        assert_near("gradient in another order", other_BT, gradient_BT[order_B])

    def gradient(self) -> None:
        """The gradient is that of the loss, by central differences in float64."""
        batch = random_batch(sizes=(3, 2), width=4)
        frozen = frozen_stages(self.method, batch, 0.5)
        try:
            torch.autograd.gradcheck(lambda logp: frozen_loss(self.method, frozen, logp), (moved_logps(batch),))
        except RuntimeError as error:
            raise AssertionError(f"gradient by central differences: {error}") from error

    def equal_rewards(self) -> None:
        """Where all rewards are equal nothing is learnt."""
        batch = random_batch()
        batch = replace(batch, rewards_B=torch.full_like(batch.rewards_B, 0.7))
        _, gradient_BT = loss_and_gradient(self.method, batch, moved_logps(batch))
        assert_near("gradient with equal rewards", gradient_BT, torch.zeros_like(gradient_BT), 0.0)

    def read_only(self) -> None:
        """No stage writes to the batch."""
        batch = random_batch()
        before = {f.name: getattr(batch, f.name).clone() for f in fields(batch) if getattr(batch, f.name) is not None}
        loss_and_gradient(self.method, batch, moved_logps(batch))
        changed = [name for name, value in before.items() if not torch.equal(value, getattr(batch, name))]
        if changed:
            raise AssertionError(f"stages wrote to {', '.join(changed)} of the batch")

    def _trained(self, seed: int = 0) -> Any:
        small = replace(self.method, **SMALL_BUDGET)
        object.__setattr__(small, "task", HashTask)
        with tempfile.TemporaryDirectory() as folder:
            return small.prepare(self.subject, PrepareContext(seed, Path(folder), load_subject, _no_artifacts))

    def seeded(self) -> None:
        """Training moves the weights, and two trainings with one seed move them alike."""
        first, second, given = self._trained(), self._trained(), self.subject.model.state_dict()
        if all(torch.equal(value, given[name].cpu()) for name, value in first["state"].items()):
            raise AssertionError("training changed no weight, although rewards differ within groups")
        different = [k for k, v in first["state"].items() if not torch.equal(v, second["state"][k])]
        if different:
            raise AssertionError(f"seed 0 twice gave different weights in {different[0]} and {len(different) - 1} more")

    def restored(self, interrupt: bool) -> None:
        """The given subject's weights are bit for bit as before; the new one has the trained ones."""
        model = self.subject.model
        before = {name: value.clone() for name, value in model.state_dict().items()}
        marks = fingerprint(model)
        artifact = self._trained()
        try:
            with self.method.apply(self.subject, artifact) as opened:
                held = opened.model.state_dict()
                wrong = [name for name, value in artifact["state"].items() if not torch.equal(value, held[name].cpu())]
                if wrong:
                    raise AssertionError(f"the new subject does not hold the trained {wrong[0]}")
                if interrupt:
                    raise Interrupted
        except Interrupted:
            pass
        moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
        if moved or fingerprint(model) != marks:
            raise AssertionError(f"the given subject is not as before: {', '.join(moved[:3]) or 'its modules changed'}")


def _no_artifacts(name: str) -> Any:
    raise Refused(f"a check gives no artifacts of other methods (asked for {name})")


def objective_checks(method: ObjectiveMethod, subject: Subject) -> Iterable[Check]:
    """All checks of a method."""
    checks = _Checks(method, subject)
    yield Check("padding does not leak", checks.padding)
    yield Check("order of responses does not matter", checks.order)
    yield Check("gradient by central differences", checks.gradient)
    if method.centred:
        yield Check("equal rewards teach nothing", checks.equal_rewards)
    yield Check("stages leave the batch alone", checks.read_only)
    yield Check("same seed, same result", checks.seeded)
    yield Check("restored after exit", lambda: checks.restored(False))
    yield Check("restored after an exception", lambda: checks.restored(True))
