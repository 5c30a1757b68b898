"""Merging attention parts by their log-sum-exp."""

import math

import pytest
import torch

from harness.kinds.kernel import merge_lse, region_forward


def part(query, key, value):
    """Attention over one set of keys, written out; an empty set gives NaN outputs and -inf."""
    logits = query @ key.transpose(-1, -2)
    return logits.softmax(-1) @ value if key.shape[-2] else torch.full_like(query, math.nan), logits.logsumexp(-1)


def drawn(seed, *sizes):
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(2, n, 4, generator=generator, dtype=torch.float64) for n in (3, sum(sizes), sum(sizes))
    )
    return query, key, value, list(zip(key.split(sizes, 1), value.split(sizes, 1), strict=True))


@pytest.mark.parametrize("sizes", [(1, 1), (5, 2), (1, 7, 3), (4, 0), (0, 4), (2, 0, 5, 0)])
@pytest.mark.parametrize("seed", range(3))
def test_merging_equals_one_softmax_over_the_union(sizes, seed):
    query, key, value, parts = drawn(seed, *sizes)
    out, lse = merge_lse(*(part(query, k, v) for k, v in parts))
    expected, expected_lse = part(query, key, value)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(lse, expected_lse, rtol=1e-12, atol=1e-12)


def test_merging_is_commutative_and_associative():
    query, _, _, parts = drawn(0, 3, 2, 4)
    a, b, c = (part(query, k, v) for k, v in parts)
    straight = merge_lse(merge_lse(a, b), c)
    for other in (merge_lse(a, merge_lse(b, c)), merge_lse(c, b, a)):
        torch.testing.assert_close(straight, other, rtol=1e-12, atol=1e-12)


def test_a_row_without_any_key_is_zero_and_stays_empty():
    empty = torch.full((2, 3), math.nan), torch.full((2,), -math.inf)
    out, lse = merge_lse(empty, empty)
    assert torch.equal(out, torch.zeros(2, 3))
    assert torch.equal(lse, torch.full((2,), -math.inf))


def test_an_empty_part_passes_no_gradient_and_no_nan():
    out = torch.randn(2, 3, requires_grad=True)
    lse = torch.randn(2, requires_grad=True)
    merged, _ = merge_lse((out, lse), (torch.full((2, 3), math.nan), torch.full((2,), -math.inf)))
    merged.sum().backward()
    assert torch.equal(out.grad, torch.ones(2, 3))
    assert torch.equal(lse.grad, torch.zeros(2))


def test_gradients_flow_through_outputs_and_log_sums():
    leaves = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    sums = [torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b, m, n: merge_lse((a, m), (b, n)), (*leaves, *sums))


def test_huge_log_sums_neither_overflow_nor_lose_the_smaller_part():
    one, two = torch.ones(1, 1), torch.zeros(1, 1)
    out, lse = merge_lse((one, torch.tensor([1e4])), (two, torch.tensor([1e4])))
    assert out.item() == 0.5
    assert lse.item() == pytest.approx(1e4 + math.log(2))


def test_half_precision_parts_are_summed_in_float32():
    query = torch.randn(1, 2, 8, 16, dtype=torch.bfloat16)
    key = torch.randn(1, 2, 8, 16, dtype=torch.bfloat16)
    out, lse = merge_lse(region_forward(query, key, key, False, 0.25), region_forward(query, key, key, False, 0.25))
    assert out.dtype == torch.bfloat16
    assert lse.dtype == torch.float32
