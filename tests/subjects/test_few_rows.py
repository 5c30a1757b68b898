"""The packed product equals the plain one, follows changes of the weight, and keeps away from training."""

import copy

import pytest
import torch
from torch import nn

from harness.subjects import few_rows
from harness.subjects.few_rows import FewRowLinear, few_row_kernels_are_faster, packed_weight, use_few_row_kernels

needs_kernels = pytest.mark.skipif(
    not few_row_kernels_are_faster(), reason="this CPU has no bfloat16 instructions, so nothing is packed"
)


def layer(bias=False, dtype=torch.bfloat16):
    """A small model of one linear layer that packs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48, bias=bias).to(dtype))
    use_few_row_kernels(model)
    return model[0]


@needs_kernels
@pytest.mark.parametrize("shape", [(1, 64), (2, 64), (3, 5, 64), (1, 8, 64), (600, 64)])
@pytest.mark.parametrize("bias", [False, True])
def test_the_product_is_that_of_a_plain_layer(shape, bias):
    ours, x = layer(bias), torch.randn(shape).bfloat16()
    with torch.inference_mode():
        exact = nn.functional.linear(x.float(), ours.weight.float(), ours.bias.float() if bias else None)
        assert torch.allclose(ours(x).float(), exact, rtol=0.02, atol=0.02)
        assert ours(x).shape == exact.shape


@needs_kernels
def test_a_change_in_place_and_another_weight_are_seen():
    ours, x = layer(), torch.randn(4, 64).bfloat16()
    with torch.inference_mode():
        before = ours(x)
    with torch.no_grad():
        ours.weight.mul_(2)
    with torch.inference_mode():
        assert torch.allclose(ours(x), 2 * before)
    ours.weight = nn.Parameter(torch.zeros_like(ours.weight))
    with torch.inference_mode():
        assert not ours(x).any()


@needs_kernels
def test_what_is_differentiated_runs_through_the_plain_layer():
    ours, x = layer(), torch.randn(4, 64).bfloat16()
    ours(x).float().sum().backward()
    assert torch.allclose(ours.weight.grad[0].float(), x.float().sum(0), rtol=0.02, atol=0.05)


@needs_kernels
def test_the_packed_copy_is_made_once_and_not_copied_with_the_layer():
    ours = layer()
    assert packed_weight(ours) is packed_weight(ours)
    twin = copy.deepcopy(ours)
    assert isinstance(twin, FewRowLinear) and packed_weight(twin) is not packed_weight(ours)
    assert set(ours.state_dict()) == {"weight"}


def test_other_types_and_large_models_stay_as_they_are(monkeypatch):
    assert type(layer(dtype=torch.float32)) is nn.Linear
    monkeypatch.setattr(few_rows, "PACKED_BYTES", 10)
    assert type(layer()) is nn.Linear
