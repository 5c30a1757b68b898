"""The pieces of tiny trainings."""

import pytest
import torch
from torch import nn

from harness.toolkit.trainer import adamw, optimizer_step, repeatable, restoring


def test_step_cuts_the_gradient_and_returns_its_full_norm():
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    norm = optimizer_step(optimizer, (model.weight * torch.tensor([[3.0, 4.0]])).sum(), max_norm=1.0)
    assert float(norm) == pytest.approx(5.0)
    assert model.weight.norm().item() == pytest.approx(1.0, abs=1e-5)


def test_frozen_parameters_are_not_trained():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert len(adamw(model, 0.1).param_groups[0]["params"]) == 1


@pytest.mark.parametrize("fails", [False, True])
def test_restoring(fails):
    model = nn.Linear(3, 2)
    optimizer = adamw(model, 0.1)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match="on purpose") if fails else torch.enable_grad(), restoring(model, optimizer):
        optimizer_step(optimizer, model(torch.ones(1, 3)).sum())
        assert not torch.equal(model.weight, before[0])
        if fails:
            raise RuntimeError("on purpose")
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert not optimizer.state and all(p.grad is None for p in model.parameters())


def test_repeatable_is_undone_also_after_an_error():
    with pytest.raises(ValueError), repeatable():
        assert torch.are_deterministic_algorithms_enabled()
        raise ValueError
    assert not torch.are_deterministic_algorithms_enabled()
