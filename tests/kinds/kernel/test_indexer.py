"""Indexer scores: plain against their definition, Triton against plain."""

import pytest
import torch

from harness.kinds.kernel.indexer import Indexing, all_blocks, block_means, plain_block_scores, plain_scores
from harness.kinds.kernel.indexer_workloads import coherent_keys, intersection_over_union


def drawn(sequences=2, queries=3, heads=5, width=12, keys=43, dtype=torch.float32, device="cpu"):
    """Queries that see from a few padded places on, up to their own; gates of both signs."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(sequences, queries, heads, width), (sequences, queries, heads), (sequences, keys, width)]
    query, gate, key = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    stop = torch.arange(keys - queries + 1, keys + 1, device=device).expand(sequences, -1)
    start = torch.arange(sequences, device=device)[:, None].expand(-1, queries) * 5
    return Indexing(query, gate, start, stop), key


def by_definition(asked, key_SND):
    """One token at a time; -inf where it is not seen."""
    scores = torch.full((*asked.query_SMHD.shape[:2], key_SND.shape[1]), -torch.inf)
    for s, m in torch.cartesian_prod(*(torch.arange(n) for n in scores.shape[:2])).tolist():
        for n in range(int(asked.start_SM[s, m]), int(asked.stop_SM[s, m])):
            dots = [max(0.0, float(q @ key_SND[s, n])) for q in asked.query_SMHD[s, m]]
            scores[s, m, n] = sum(w * d for w, d in zip(asked.gate_SMH[s, m].tolist(), dots, strict=True))
    return scores


def test_the_flat_scores_are_their_definition():
    asked, key = drawn()
    torch.testing.assert_close(plain_scores(asked, key), by_definition(asked, key))


def test_scores_in_all_blocks_are_the_flat_ones():
    asked, key = drawn()
    found = plain_block_scores(asked, key, all_blocks(asked, 43, 8), 8)
    torch.testing.assert_close(found[..., :43], plain_scores(asked, key))
    assert (found[..., 43:] == -torch.inf).all()


def test_means_are_of_real_members():
    key = torch.arange(20.0).view(1, 10, 2)
    assert torch.equal(
        block_means(key, 4), torch.stack([key[0, :4].mean(0), key[0, 4:8].mean(0), key[0, 8:].mean(0)])[None]
    )
    assert torch.equal(block_means(key, 1), key)


def test_a_block_is_visible_where_any_of_its_keys_is():
    asked, _ = drawn()
    blocks = asked.by_block(8)
    assert blocks.start_SM[:, 0].tolist() == [0, 0] and blocks.stop_SM[0].tolist() == [6, 6, 6]
    assert drawn(keys=41)[0].by_block(8).stop_SM[0].tolist() == [5, 5, 6]


@pytest.mark.parametrize(("heads", "width", "block"), [(5, 12, 8), (1, 16, 1), (17, 40, 20)])
def test_triton_gives_what_torch_gives(heads, width, block, device, poisoned):
    from harness.kinds.kernel.triton_indexer import triton_block_scores

    asked, key = drawn(heads=heads, width=width, device=device)
    blocks = torch.tensor([[[0, 2, -1], [1, -1, 0], [2, 1, 43 // block]]] * 2, device=device)
    expected = plain_block_scores(asked, key, blocks, block)
    torch.testing.assert_close(triton_block_scores(asked, key, blocks, block), expected, rtol=1e-5, atol=1e-5)
    assert expected.isfinite().any() and (expected == -torch.inf).any()


def test_triton_takes_float16(device, poisoned):
    from harness.kinds.kernel.triton_indexer import triton_block_scores

    asked, key = drawn(dtype=torch.float16, device=device)
    blocks = all_blocks(asked, 43, 16)
    expected = plain_block_scores(asked, key, blocks, 16)
    torch.testing.assert_close(triton_block_scores(asked, key, blocks, 16), expected, rtol=1e-3, atol=1e-3)


def test_coherent_keys_drift_and_keep_their_length():
    key = coherent_keys(3000, 64, 0)[0]
    assert abs(float(key.var()) - 1) < 0.2
    assert (key[1:] - key[:-1]).std() < 0.06
    near, far = ((key[n:] * key[:-n]).mean() for n in (16, 2500))
    assert near > 0.8 and abs(far) < 0.3


def test_what_two_choices_share():
    ours, theirs = torch.tensor([[[1, 2, 3, -1], [4, 5, -1, -1]]]), torch.tensor([[[2, 3, 4, -1], [5, 4, -1, -1]]])
    assert intersection_over_union(ours, theirs) == (0.5 + 1) / 2
