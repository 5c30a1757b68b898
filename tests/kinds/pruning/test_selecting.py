"""Selection against its definition: the best slots, attention over them, pages and packed channels as a cache grows."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.kinds.pruning.packed_keys import packed_keys
from harness.kinds.pruning.paging import best_pages, page_slots, page_summaries
from harness.kinds.pruning.selecting import best_slots, first_slots, group_queries, joined, logits, row_view
from harness.subjects.grouped import selected_attention
from harness.subjects.views import QueryView, Selection


def view_of(slots=30, new=1, batch=1, seed=0, committed=None):
    """Four query heads over two key/value heads."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(batch, 4, new, 8, generator=generator)
    keys = torch.randn(batch, 2, slots, 8, generator=generator)
    return QueryView(0, 1, "decode", queries, keys, None, slots - new if committed is None else committed, 8**-0.5, {})


@settings(max_examples=50)
@given(data=st.data(), slots=st.integers(1, 12), new=st.integers(1, 3))
def test_the_best_slots_are_those_of_a_plain_sort(data, slots, new):
    new = min(new, slots)
    scores = torch.tensor(data.draw(st.permutations(range(slots)))).float().expand(1, 2, new, slots).clone()
    allowed = torch.ones(new, slots, dtype=torch.bool).tril(slots - new)[None, None]
    keep = torch.tensor([[data.draw(st.integers(1, slots - new + 1 + t)) for t in range(new)]])
    index, valid = best_slots(scores, allowed, keep)
    for query in range(new):
        own = slots - new + query
        rest = sorted(range(own), key=lambda j: -scores[0, 0, 0, j].item())[: int(keep[0, query]) - 1]
        used = torch.ones_like(index, dtype=torch.bool) if valid is None else valid
        assert set(index[0, 1, query][used[0, 1, query]].tolist()) == {own, *rest}


def test_scores_are_not_changed_by_choosing():
    scores = torch.rand(1, 1, 1, 9)
    before = scores.clone()
    best_slots(scores, None, torch.tensor([[3]]))
    assert torch.equal(scores, before)


@pytest.mark.parametrize("new", [1, 3])
@pytest.mark.parametrize("sets", [1, 2, 4])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_attention_over_a_selection_is_softmax_over_its_slots(new, sets, softcap):
    view = view_of(new=new, batch=2)
    values = torch.randn(2, 2, 30, 8, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(6)
    index = torch.rand(2, sets, new, 27, generator=generator).argsort(-1)[..., :7]
    valid = torch.rand(2, sets, new, 7, generator=generator) > 0.3
    valid[..., 0] = True
    ours = selected_attention(
        view.queries_BHTD, view.keys_BGND, values, None, Selection(index, valid, 0.0), view.scaling, softcap
    )
    for row in range(2):
        for head in range(4):
            for query in range(new):
                chosen = head * sets // 4
                slots = index[row, chosen, query][valid[row, chosen, query]]
                weight = view.keys_BGND[row, head // 2, slots] @ view.queries_BHTD[row, head, query] * view.scaling
                weight = weight if softcap is None else softcap * torch.tanh(weight / softcap)
                wanted = weight.softmax(-1) @ values[row, head // 2, slots]
                torch.testing.assert_close(ours[row, head, query], wanted, atol=1e-5, rtol=1e-5)


def test_logits_are_those_of_each_head_with_its_own_keys():
    view = view_of(new=2)
    ours = logits(group_queries(view), view.keys_BGND).flatten(1, 2)
    for head in range(4):
        torch.testing.assert_close(ours[0, head], view.queries_BHTD[0, head] @ view.keys_BGND[0, head // 2].T)


def test_a_row_is_shown_without_its_padding_and_its_answer_is_moved_back():
    allowed = torch.ones(2, 1, 1, 30, dtype=torch.bool)
    allowed[1, ..., :12] = False
    view = replace(view_of(batch=2), allowed=allowed)
    assert first_slots(view) == [0, 12]
    alone = row_view(view, 1, 12)
    assert alone.allowed is None and alone.num_slots == 18 and alone.committed == 17
    alone.scratch["note"] = 1
    assert row_view(view, 1, 12).scratch == {"note": 1} and row_view(view, 0, 0).scratch == {}
    both = joined(
        [Selection(torch.tensor([[[[1, 4, 29]]]]), None, 0.5), Selection(torch.tensor([[[[0, 17]]]]), None, 0.1)],
        [0, 12],
    )
    assert both.index_BSTK.tolist() == [[[[1, 4, 29]]], [[[12, 29, 0]]]]
    assert both.valid_BSTK.tolist() == [[[[True, True, True]]], [[[True, True, False]]]]
    assert both.scored == pytest.approx(0.3)


@pytest.mark.parametrize("page", [1, 4, 7, 40])
def test_summaries_and_packed_keys_of_a_growing_cache_are_those_of_the_whole(page):
    """Tokens come one to three at a time; some are rolled back before they are committed."""
    whole = view_of(slots=40)
    channels = torch.tensor([[0, 3], [5, 1]])
    kept, packed = {}, {}
    for slots, committed in ((20, 18), (19, 18), (23, 20), (24, 23), (40, 39)):
        now = replace(whole, keys_BGND=whole.keys_BGND[:, :, :slots].clone(), committed=committed)
        now.keys_BGND[:, :, committed:] += slots
        summaries = page_summaries(replace(now, scratch=kept), page, lambda keys: keys.amax(3))
        parts = [now.keys_BGND[:, :, start : start + page].amax(2) for start in range(0, slots, page)]
        assert torch.equal(summaries, torch.stack(parts, 2))
        both = torch.stack([now.keys_BGND[:, g][..., channels[g]] for g in range(2)], 1)
        assert torch.equal(packed_keys(replace(now, scratch=packed), channels), both)


def test_a_query_chooses_its_own_page_and_none_after_it():
    scores = torch.arange(6.0).expand(1, 1, 3, 6)
    # 22 slots in pages of 4: the queries stand in slots 19, 20 and 21, that is in pages 4, 5 and 5.
    pages, found = best_pages(scores, 22, 4, torch.tensor([[2, 1, 2]]))
    chosen = [pages[0, 0, t][found[0, 0, t]].tolist() for t in range(3)]
    assert chosen == [[4, 3], [5], [5, 4]]
    slots, valid = page_slots(pages, found, 22, 4)
    assert slots[0, 0, 2][valid[0, 0, 2]].tolist() == [20, 21, 16, 17, 18, 19]
