"""Accumulated attention and its best keys: plain against their definition, Triton against plain."""

import pytest
import torch

from harness.kinds.kernel.importance import causal_logits, plain_importance, plain_keep, tiled_importance


def drawn(heads=6, groups=2, queries=19, keys=19, width=12, dtype=torch.float32, device="cpu"):
    """Three rows, two of them padded on the left, with the log-sum-exps of their attention; padding's are NaN."""
    generator = torch.Generator().manual_seed(queries)
    query = torch.randn(3, heads, queries, width, generator=generator).to(device, dtype)
    key = torch.randn(3, groups, keys, width, generator=generator).to(device, dtype)
    start = torch.tensor([0, 4, keys - queries // 2], device=device)
    lse = causal_logits(query, key, start, 0.3).logsumexp(-1)
    return query, key, lse.masked_fill(lse == -torch.inf, torch.nan), start, 0.3


@pytest.mark.parametrize(("queries", "keys"), [(19, 19), (5, 19), (1, 7)])
def test_importance_is_the_sum_of_attention_columns(queries, keys):
    query, key, lse, start, scale = drawn(queries=queries, keys=keys)
    found = plain_importance(query, key, lse, start, scale)
    for row in range(3):
        expected = torch.zeros(keys)
        for t in range(queries):
            own = keys - queries + t
            seen = slice(int(start[row]), own + 1)
            for head in range(6) if own >= start[row] else ():
                logits = key[row, head // 3, seen] @ query[row, head, t] * scale
                expected[seen] += logits.softmax(-1)
        torch.testing.assert_close(found[row], expected)


def test_probability_is_neither_lost_nor_made():
    query, key, lse, start, scale = drawn()
    received = plain_importance(query, key, lse, start, scale).sum(-1)
    torch.testing.assert_close(received, 6.0 * (19 - start))


@pytest.mark.parametrize(("queries", "keys"), [(300, 300), (130, 200)])
def test_tiles_add_up_to_the_whole(queries, keys):
    inputs = drawn(heads=2, groups=1, queries=queries, keys=keys)
    torch.testing.assert_close(tiled_importance(*inputs), plain_importance(*inputs), rtol=1e-5, atol=1e-5)


def test_of_equal_scores_the_earlier_are_kept():
    score = torch.tensor([[1.0, 3.0, 3.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    kept = plain_keep(score, torch.tensor([2, 3, 9]))
    assert [row.nonzero()[:, 0].tolist() for row in kept] == [[1, 2], [0, 1, 2], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    "shape", [{}, {"queries": 5, "keys": 70, "width": 40}, {"heads": 3, "groups": 1, "queries": 67, "keys": 67}]
)
def test_triton_sums_what_torch_sums(shape, device, poisoned):
    from harness.kinds.kernel.triton_importance import triton_importance

    inputs = drawn(**shape, device=device)
    torch.testing.assert_close(triton_importance(*inputs), plain_importance(*inputs), rtol=1e-5, atol=1e-5)


def test_triton_takes_float16(device, poisoned):
    from harness.kinds.kernel.triton_importance import triton_importance

    inputs = drawn(dtype=torch.float16, device=device)
    torch.testing.assert_close(triton_importance(*inputs), plain_importance(*inputs), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("keys", [1, 64, 150])
def test_triton_keeps_what_torch_keeps(keys, device, poisoned):
    from harness.kinds.kernel.triton_importance import triton_keep

    score = torch.randint(9, (3, keys), generator=torch.Generator().manual_seed(keys)).float().to(device)
    score[0] = torch.randn(keys, generator=torch.Generator().manual_seed(1)).to(device)
    count = torch.tensor([1, keys // 3, keys], device=device)
    assert torch.equal(triton_keep(score, count), plain_keep(score, count))
