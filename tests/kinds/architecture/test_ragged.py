"""Rectangles of ragged parts against masks over whole rows, and against one segment at a time."""

import pytest
import torch

from harness.kinds.architecture.blocks import Blocks
from harness.kinds.architecture.ragged import Segments, inside, kept_places, picked


def marked(rows, count, share, seed=0):
    return torch.rand(rows, count, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_segments_are_the_runs_up_to_each_mark(share):
    last = marked(3, 50, share)
    segments = Segments.after(last)
    expected = []
    for row in range(3):
        start, number = 0, 0
        for place in range(50):
            if last[row, place] or place == 49:
                expected.append((row * 50 + start, place + 1 - start, row, number))
                start, number = place + 1, number + 1
    found = zip(
        *(t.tolist() for t in (segments.start_K, segments.length_K, segments.row_K, segments.number_K)), strict=True
    )
    assert list(found) == expected


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_groups_hold_every_place_once(share):
    segments = Segments.after(marked(3, 50, share))
    places, indices = [], []
    for index, place, held in segments.groups():
        places += place[held].tolist()
        indices += index.tolist()
        assert held.sum(1).tolist() == segments.length_K[index].tolist()
        assert place.shape[1] <= max(8, 2 * int(segments.length_K[index].min()))
    assert sorted(places) == list(range(150)) and sorted(indices) == list(range(len(segments.start_K)))


@pytest.mark.parametrize("lead", [0, 2])
@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_grouped_by_length_is_one_at_a_time(lead, causal):
    blocks, x = Blocks(16, 2, 2), torch.randn(2 * 60, 16)
    segments = Segments.after(marked(2, 60, 0.12))
    count = len(segments.start_K)
    leads = torch.randn(count, lead, 16)
    assert len(list(segments.groups())) > 1
    lead_out, out = inside(blocks, leads, x, segments, causal)
    for k in range(count):
        start, length = int(segments.start_K[k]), int(segments.length_K[k])
        own = torch.cat([leads[k], x[start : start + length]])[None]
        size = lead + length
        mask = torch.ones(1, 1, size, size, dtype=torch.bool)
        alone = blocks(own, mask=mask.tril() if causal else mask)[0]
        assert torch.allclose(lead_out[k], alone[:lead], atol=1e-5)
        assert torch.allclose(out[start : start + length], alone[lead:], atol=1e-5)


def test_kept_places_come_in_order():
    keep = torch.tensor([[True, False, True, False], [False, True, False, False]])
    place, real = kept_places(keep)
    assert place[0].tolist() == [0, 2] and int(place[1, 0]) == 1
    assert real.tolist() == [[True, True], [True, False]]
    assert picked(torch.arange(8.0).view(2, 4, 1), place)[0, :, 0].tolist() == [0.0, 2.0]
    assert kept_places(torch.zeros(2, 3, dtype=torch.bool))[0].shape == (2, 0)
