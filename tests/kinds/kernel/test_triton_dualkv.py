"""The fused attention of packed groups against the block mask: outputs and gradients, on odd sizes."""

import pytest
import torch

from harness.errors import Refused
from harness.kinds.kernel import Layout, result_error
from harness.kinds.kernel.whole_row import fused_attention, masked_attention

SHAPES = {
    "ragged": ([(7, [5, 1, 0, 11])], 4, 2, 8),
    "over a tile": ([(67, [70, 3])], 3, 1, 24),
    "several groups": ([(19, [5, 0]), (2, [3]), (1, [2, 2])], 3, 1, 16),
    "shortest": ([(1, [1])], 1, 1, 8),
}


def inputs(shape, device, dtype=torch.float32):
    lengths, heads, groups, width = shape
    layout = Layout.of(lengths, device)
    generator = torch.Generator().manual_seed(1)
    made = [torch.randn(1, n, layout.num_tokens, width, generator=generator) for n in (heads, groups, groups, heads)]
    return layout, [x.to(device, dtype) for x in made]


def gradients(attend, layout, tensors):
    leaves = [x.detach().clone().requires_grad_() for x in tensors[:3]]
    out = attend(*leaves, layout, 0.4)
    return [out.detach(), *torch.autograd.grad(out, leaves, tensors[3])]


@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_equal_the_block_masks(shape, device, poisoned):
    layout, tensors = inputs(SHAPES[shape], device)
    assert (
        result_error(gradients(fused_attention, layout, tensors), gradients(masked_attention, layout, tensors)) < 2e-6
    )


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_coarser_types_agree_within_their_rounding(dtype, bound, device, poisoned):
    if device.type == "cpu" and dtype == torch.bfloat16:
        pytest.skip("the interpreter multiplies the bits of bfloat16 as integers")
    layout, tensors = inputs(SHAPES["ragged"], device, dtype)
    found = gradients(fused_attention, layout, tensors)
    assert {x.dtype for x in found} == {dtype}
    exact = gradients(masked_attention, layout, [x.float() for x in tensors])
    assert result_error(found, exact) < bound


def test_large_logits_do_not_overflow(device, poisoned):
    layout, tensors = inputs(SHAPES["ragged"], device)
    tensors[0] *= 300
    assert (
        result_error(gradients(fused_attention, layout, tensors), gradients(masked_attention, layout, tensors)) < 1e-3
    )


def test_transposed_inputs_are_read_as_they_are_meant(device):
    layout, tensors = inputs(SHAPES["ragged"], device)
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors]
    straight, found = (gradients(fused_attention, layout, given) for given in (tensors, turned))
    assert all(torch.equal(a, b) for a, b in zip(straight, found, strict=True))


def test_a_type_it_does_not_know_is_refused(device):
    layout, tensors = inputs(SHAPES["shortest"], device, torch.float64)
    with pytest.raises(Refused, match="float64"):
        fused_attention(*tensors[:3], layout, 1.0)
