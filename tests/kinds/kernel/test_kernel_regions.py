"""Attention of one region: fused and plain, forward and backward."""

import math

import pytest
import torch
import torch.nn.functional as F

from harness.kinds.kernel import merge_lse, region_backward, region_forward
from harness.kinds.kernel.regions import plain_backward, plain_forward


def drawn(heads, groups, tokens, keys, dtype=torch.float64, batch=2):
    generator = torch.Generator().manual_seed(heads * 100 + tokens)
    shapes = [(batch, heads, tokens, 8), (batch, groups, keys, 8), (batch, groups, keys, 8), (batch, heads, tokens, 8)]
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (9, 3), (4, 1)])
@pytest.mark.parametrize(("tokens", "keys", "causal"), [(1, 1, True), (13, 13, True), (5, 11, False), (3, 1, False)])
def test_forward_and_backward_equal_the_library(heads, groups, tokens, keys, causal):
    query, key, value, grad = drawn(heads, groups, tokens, keys)
    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    expected = F.scaled_dot_product_attention(*leaves, is_causal=causal, scale=0.3, enable_gqa=True)
    out, lse = region_forward(query, key, value, causal, 0.3)
    torch.testing.assert_close(out, expected.detach(), rtol=1e-12, atol=1e-12)
    found = region_backward(grad, query, key, value, out, lse, causal, 0.3)
    torch.testing.assert_close(found, torch.autograd.grad(expected, leaves, grad), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2), (torch.float16, 5e-3)])
def test_the_plain_form_equals_the_fused_one(causal, dtype, bound):
    query, key, value, grad = drawn(3, 3, 17, 17, dtype)
    out, lse = plain_forward(query, key, value, causal, 0.3)
    fused_out, fused_lse = region_forward(query, key, value, causal, 0.3)
    assert out.dtype == dtype and lse.dtype == fused_lse.dtype == torch.float32
    torch.testing.assert_close(out, fused_out, rtol=bound, atol=bound)
    torch.testing.assert_close(lse, fused_lse, rtol=bound, atol=bound)
    ours = plain_backward(grad, query, key, value, fused_out, fused_lse, causal, 0.3)
    theirs = region_backward(grad, query, key, value, fused_out, fused_lse, causal, 0.3)
    torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound)


def test_gradients_of_two_regions_add_up_to_those_of_their_union():
    query, key, value, grad = drawn(4, 2, 5, 11)
    cuts = [(key[:, :, :7], value[:, :, :7]), (key[:, :, 7:], value[:, :, 7:])]
    out, lse = merge_lse(*(region_forward(query, k, v, False, 0.3) for k, v in cuts))
    parts = [region_backward(grad, query, k, v, out, lse, False, 0.3) for k, v in cuts]
    whole_out, whole_lse = region_forward(query, key, value, False, 0.3)
    d_query, d_key, d_value = region_backward(grad, query, key, value, whole_out, whole_lse, False, 0.3)
    torch.testing.assert_close(parts[0][0] + parts[1][0], d_query)
    torch.testing.assert_close(torch.cat([p[1] for p in parts], 2), d_key)
    torch.testing.assert_close(torch.cat([p[2] for p in parts], 2), d_value)


@pytest.mark.parametrize("backward", [region_backward, plain_backward])
def test_a_padded_row_passes_no_gradient(backward):
    query, key, value, grad = drawn(3, 3, 6, 6)
    out, lse = region_forward(query, key, value, True, 0.3)
    grad[:, :, 4:] = 0.0
    expected = backward(grad, query, key, value, out, lse, True, 0.3)
    lse[:, :, 4:] = math.inf
    out[:, :, 4:] = 7.0
    found = backward(grad, query, key, value, out, lse, True, 0.3)
    torch.testing.assert_close(found, expected)
    assert not found[0][:, :, 4:].any()


@pytest.mark.parametrize(("tokens", "keys"), [(0, 3), (3, 0)])
def test_an_empty_region_is_an_error_and_not_a_crash(tokens, keys):
    query, key, value, _ = drawn(2, 2, tokens, keys)
    with pytest.raises(ValueError, match="a query and a key"):
        region_forward(query, key, value, False, 0.3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("causal", [True, False])
def test_a_gpu_gives_what_the_cpu_gives(causal):
    inputs = drawn(9, 3, 17, 17, torch.float32)
    query, key, value, grad = inputs
    out, lse = region_forward(query, key, value, causal, 0.3)
    found = region_backward(grad, query, key, value, out, lse, causal, 0.3)
    query, key, value, grad = (x.cuda() for x in inputs)
    gpu_out, gpu_lse = region_forward(query, key, value, causal, 0.3)
    gpu_found = region_backward(grad, query, key, value, gpu_out, gpu_lse, causal, 0.3)
    for ours, theirs in zip((out, lse, *found), (gpu_out, gpu_lse, *gpu_found), strict=True):
        torch.testing.assert_close(ours, theirs.cpu(), rtol=1e-2, atol=1e-2)
