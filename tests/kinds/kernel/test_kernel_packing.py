"""Packed rows: places, positions, masks and counts."""

import pytest
import torch

from harness.kinds.kernel import Layout, pack_groups
from harness.kinds.kernel.packing import split_packed, split_replicated

CPU = torch.device("cpu")


def test_consecutive_equal_prompts_form_one_group():
    prompts = [[1, 2], [1, 2], [3], [1, 2]]
    batch = pack_groups(prompts, [[5], [6, 7], [8], [9]], CPU)
    assert batch.ids_T.tolist() == [1, 2, 5, 6, 7, 3, 8, 1, 2, 9]
    assert [(g.start, g.prompt, g.responses) for g in batch.layout.groups] == [
        (0, 2, (1, 2)),
        (5, 1, (1,)),
        (7, 2, (1,)),
    ]


def test_positions_restart_at_the_prompts_end_for_every_response():
    layout = Layout.of([(3, [2, 0, 1]), (1, [2])], CPU)
    assert layout.position_T.tolist() == [0, 1, 2, 3, 4, 3, 0, 1, 2]


def test_targets_keep_the_order_of_the_sequences_and_empty_responses_are_empty_rows():
    batch = pack_groups([[1], [1], [1]], [[2, 3], [], [4]], CPU)
    assert batch.layout.valid_SR.tolist() == [[True, True], [False, False], [True, False]]
    assert batch.target_SR[batch.layout.valid_SR].tolist() == [2, 3, 4]


def test_the_first_token_of_every_response_is_predicted_by_the_prompts_last():
    layout = Layout.of([(3, [2, 0, 3]), (2, [1])], CPU)
    rows = [row[valid].tolist() for row, valid in zip(layout.predictor_SR, layout.valid_SR, strict=True)]
    assert rows == [[2, 3], [], [2, 5, 6], [9]]


def test_rows_at_a_segments_end_predict_nothing():
    layout = Layout.of([(3, [2, 3])], CPU)
    used = set(layout.predictor_SR[layout.valid_SR].tolist())
    assert used.isdisjoint({4, 7, 0, 1})


def test_the_mask_equals_its_definition():
    layout = Layout.of([(2, [2, 0, 1]), (1, [2])], CPU)
    segment = ["0p", "0p", "0a", "0a", "0c", "1p", "1a", "1a"]
    expected = [
        [b <= a and (segment[a] == segment[b] or segment[b] == segment[a][0] + "p") for b in range(8)] for a in range(8)
    ]
    assert layout.mask_TT.tolist() == expected


@pytest.mark.parametrize(
    "lengths", [[(4, [3, 3])], [(4, [1])], [(7, [5, 1, 0, 11]), (2, [4]), (1, [0, 0])], [(3, [0])]]
)
def test_counts_equal_what_is_counted(lengths):
    layout = Layout.of(lengths, CPU)
    sequences = [[(p, r) for r in responses] for p, responses in lengths]
    replicated = sum(p + r for group in sequences for p, r in group)
    packed = sum(p + sum(r) for p, r in lengths)
    assert (layout.num_replicated, layout.num_tokens) == (replicated, packed) == (replicated, len(layout.position_T))
    assert layout.rho == replicated / packed
    assert layout.num_logits == int(layout.mask_TT.sum())
    pairs = [torch.ones(p + r, p + r).tril().sum() for group in sequences for p, r in group]
    assert layout.num_logits_replicated == int(sum(pairs))


def test_rho_of_equal_responses_is_the_papers_formula():
    layout = Layout.of([(1024, [32] * 16)], CPU)
    assert layout.rho == 16 * (1024 + 32) / (1024 + 16 * 32) == 11.0


def test_replicas_are_the_sequences_padded_on_the_right():
    batch = pack_groups([[1, 2], [1, 2], [3]], [[4, 5], [], [6]], CPU)
    rows, lengths = batch.replicated().tolist(), (4, 2, 2)
    assert [row[:n] for row, n in zip(rows, lengths, strict=True)] == [[1, 2, 4, 5], [1, 2], [3, 6]]


@pytest.mark.parametrize("lengths", [[2, 2, 2], [3, 0, 1], [4]])
def test_rows_of_responses_and_back(lengths):
    group = Layout.of([(5, [1]), (2, lengths)], CPU).groups[1]
    own = torch.arange(2 * sum(lengths) * 3.0).view(1, 2, -1, 3) + 1
    for packed in (own, own[..., 0]):
        rows = group.to_rows(packed, -1.0)
        assert rows.shape[:3] == (len(lengths), 2, max(lengths))
        torch.testing.assert_close(group.from_rows(rows), packed)
        outside = rows.transpose(1, 2)[~group.valid_NR]
        assert torch.equal(outside, torch.full_like(outside, -1.0))
    torch.testing.assert_close(group.from_rows(group.to_rows(own)), own)


def test_splits_of_packed_and_replicated_agree():
    layout = Layout.of([(3, [2, 0, 1])], CPU)
    packed = torch.randn(1, 2, 6, 4)
    replicated = packed[0][:, layout.replica_SL].transpose(0, 1)
    first = split_replicated(replicated, layout.groups[0], sum_prompt=False)
    for ours, theirs in zip(split_packed(packed, layout.groups[0]), first, strict=True):
        assert torch.equal(ours, theirs)
    summed = split_replicated(replicated, layout.groups[0], sum_prompt=True)
    torch.testing.assert_close(summed[0], 3 * first[0])


@pytest.mark.parametrize("lengths", [[(0, [1])], [(1, [])], [(1, [-1])]])
def test_a_group_without_prompt_or_response_is_refused(lengths):
    with pytest.raises(ValueError, match="a group needs"):
        Layout.of(lengths, CPU)


def test_prompts_and_responses_must_be_as_many():
    with pytest.raises(ValueError):
        pack_groups([[1]], [[2], [3]], CPU)
