"""The packed product equals the plain one, follows changes of the weight, and keeps away from training."""

import copy

import pytest
import torch
from torch import nn

from harness.subjects import few_rows
from harness.subjects.few_rows import (
    PACKED_ROWS,
    few_row_kernels_are_faster,
    has_few_row_kernels,
    packed_weight,
    use_few_row_kernels,
)

LIMITS = {torch.bfloat16: 0.02, torch.float32: 1e-5}


@pytest.fixture(params=list(LIMITS), ids=str)
def dtype(request):
    """A type for which this CPU packs."""
    if not few_row_kernels_are_faster(request.param):
        pytest.skip(f"this CPU lacks the instructions for which {request.param} is packed")
    return request.param


def layer(dtype, bias=False):
    """A small model of one linear layer that packs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48, bias=bias).to(dtype))
    use_few_row_kernels(model)
    return model[0]


def close(a, b, dtype):
    return torch.allclose(a.float(), b.float(), rtol=LIMITS[dtype], atol=LIMITS[dtype])


@pytest.mark.parametrize("shape", [(1, 64), (2, 64), (3, 5, 64), (1, 8, 64), (600, 64)])
@pytest.mark.parametrize("bias", [False, True])
def test_the_product_is_that_of_a_plain_layer(shape, bias, dtype):
    ours, x = layer(dtype, bias), torch.randn(shape).to(dtype)
    with torch.inference_mode():
        exact = nn.functional.linear(x.float(), ours.weight.float(), ours.bias.float() if bias else None)
        assert close(ours(x), exact, dtype)
        assert ours(x).shape == exact.shape


def test_only_a_few_rows_take_the_packed_copy(dtype, monkeypatch):
    asked = []
    monkeypatch.setattr(few_rows, "packed_weight", lambda layer: asked.append(layer) or packed_weight(layer))
    ours, most = layer(dtype), PACKED_ROWS[dtype]
    with torch.inference_mode():
        for rows, taken in ((1, 0), (2, 1), (most, 2), (most + 1, 2)):
            ours(torch.randn(rows, 64).to(dtype))
            assert len(asked) == taken


def test_a_change_in_place_and_another_weight_are_seen(dtype):
    ours, x = layer(dtype), torch.randn(4, 64).to(dtype)
    with torch.inference_mode():
        before = ours(x)
    with torch.no_grad():
        ours.weight.mul_(2)
    with torch.inference_mode():
        assert close(ours(x), 2 * before, dtype)
    ours.weight = nn.Parameter(torch.zeros_like(ours.weight))
    with torch.inference_mode():
        assert not ours(x).any()


def test_what_is_differentiated_runs_through_the_plain_layer(dtype):
    ours, x = layer(dtype), torch.randn(4, 64).to(dtype)
    ours(x).float().sum().backward()
    assert torch.allclose(ours.weight.grad[0].float(), x.float().sum(0), rtol=0.02, atol=0.05)


def test_the_packed_copy_is_made_once_and_not_copied_with_the_layer(dtype):
    ours = layer(dtype)
    assert packed_weight(ours) is packed_weight(ours)
    twin = copy.deepcopy(ours)
    assert has_few_row_kernels(twin) and packed_weight(twin) is not packed_weight(ours)
    assert set(ours.state_dict()) == {"weight"}


def test_other_types_and_large_models_stay_as_they_are(monkeypatch):
    assert type(layer(torch.float16)) is nn.Linear
    monkeypatch.setattr(few_rows, "PACKED_BYTES", 10)
    for dtype in PACKED_ROWS:
        assert not has_few_row_kernels(layer(dtype))
