"""Scores and attention over chosen slots of a shared pool: plain against the library, Triton against plain."""

import pytest
import torch
import torch.nn.functional as F

from harness.kinds.kernel.merge import merge_lse
from harness.kinds.kernel.paged import plain_paged_attention, plain_paged_scores


def drawn(heads, groups, width, chosen, dtype=torch.float32, device="cpu", pool=400):
    """Queries of three requests with lists of slots in any order; the last ones are shorter, with holes."""
    generator = torch.Generator().manual_seed(chosen)
    shapes = [(3, heads, width), (pool, groups, width), (pool, groups, width)]
    tensors = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    slots = torch.stack([torch.randperm(pool, generator=generator)[:chosen] for _ in range(3)])
    slots[1, chosen // 2 :] = -1
    slots[2, ::2] = -1
    return *tensors, slots.to(device)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (9, 3), (4, 1)])
def test_attention_over_slots_is_attention_over_the_gathered_rows(heads, groups):
    query, key, value, slots = drawn(heads, groups, 8, 21)
    out, _ = plain_paged_attention(query, key, value, slots, 0.3)
    for row in range(3):
        rows = slots[row][slots[row] >= 0]
        k, v = (x[rows].transpose(0, 1)[None] for x in (key, value))
        expected = F.scaled_dot_product_attention(query[row][None, :, None], k, v, scale=0.3, enable_gqa=True)
        torch.testing.assert_close(out[row], expected[0, :, 0])


def test_lists_that_are_cut_in_two_merge_to_the_whole():
    query, key, value, slots = drawn(6, 2, 8, 20)
    parts = [plain_paged_attention(query, key, value, part, 0.3) for part in slots.split([13, 7], 1)]
    torch.testing.assert_close(merge_lse(*parts), plain_paged_attention(query, key, value, slots, 0.3))


def test_a_request_without_slots_gives_nothing():
    query, key, value, slots = drawn(2, 1, 8, 4)
    out, lse = plain_paged_attention(query, key, value, torch.full_like(slots, -1), 0.3)
    assert not out.any() and (lse == -torch.inf).all()


@pytest.mark.parametrize(("heads", "groups", "width", "chosen"), [(9, 3, 20, 35), (2, 1, 64, 270), (4, 1, 16, 1)])
def test_triton_gives_what_torch_gives(heads, groups, width, chosen, device, poisoned):
    from harness.kinds.kernel.triton_paged import triton_paged_attention, triton_paged_scores

    query, key, value, slots = drawn(heads, groups, width, chosen, device=device)
    expected = plain_paged_scores(query, key, slots)
    torch.testing.assert_close(triton_paged_scores(query, key, slots), expected, rtol=1e-5, atol=1e-4)
    found = triton_paged_attention(query, key, value, slots, 0.3)
    torch.testing.assert_close(found, plain_paged_attention(query, key, value, slots, 0.3), rtol=1e-5, atol=1e-5)


def test_triton_takes_float16_and_requests_without_slots(device, poisoned):
    from harness.kinds.kernel.triton_paged import triton_paged_attention

    query, key, value, slots = drawn(4, 2, 16, 40, torch.float16, device)
    slots[0] = -1
    found = triton_paged_attention(query, key, value, slots, 0.3)
    assert found[0].dtype == torch.float16 and not found[0][0].any()
    torch.testing.assert_close(found, plain_paged_attention(query, key, value, slots, 0.3), rtol=2e-3, atol=2e-3)
