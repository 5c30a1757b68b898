"""TokenSelect over a pool of slots: what is read, and that reading everything is full attention."""

import pytest
import torch

from harness.kinds.checking import run_checks
from harness.kinds.kernel.paged import paged_attention, paged_scores
from harness.kinds.kernel.paged_workloads import gathered_attention, pool_inputs
from methods.kernel.token_select_paged import TokenSelectPaged, slots_to_read, soft_vote

SIZE = {"slots": 40, "requests": 3}


def test_each_head_has_one_vote():
    votes = soft_vote(torch.randn(2, 5, 30))
    torch.testing.assert_close(votes.sum(-1), torch.full((2,), 5.0))
    assert not soft_vote(torch.full((1, 5, 4), -torch.inf)).any()


def test_sinks_window_and_the_winners_of_the_middle_are_read_once(tiny):
    query, key, _, table = pool_inputs(tiny, SIZE)
    found = slots_to_read(query, key, table, 3, 5, 6)
    for row in range(3):
        slots = table[row][table[row] >= 0]
        middle = slots[3:-5]
        votes = soft_vote(paged_scores(query[row : row + 1], key, middle[None]))[0]
        expected = {*slots[:3].tolist(), *slots[-5:].tolist(), *middle[votes.topk(6).indices].tolist()}
        assert sorted(found[row].tolist()) == sorted(expected) and len(expected) == 14


@pytest.mark.parametrize(("num_sinks", "window", "topk"), [(3, 5, 100), (50, 1, 1), (0, 60, 2)])
def test_a_budget_for_everything_reads_everything(tiny, num_sinks, window, topk):
    query, key, value, table = pool_inputs(tiny, SIZE)
    slots = slots_to_read(query, key, table, num_sinks, window, topk)
    for row in range(3):
        assert sorted(s for s in slots[row].tolist() if s >= 0) == sorted(s for s in table[row].tolist() if s >= 0)
    full = paged_attention(query, key, value, table, 0.3)
    torch.testing.assert_close(paged_attention(query, key, value, slots, 0.3), full)


def test_with_one_head_the_votes_rank_as_the_products(tiny):
    query, key, _, table = pool_inputs(tiny, SIZE)
    query, key = query[:, :1], key[:, :1]
    logits = paged_scores(query, key, table[:1].expand(3, -1))[0, 0]
    found = slots_to_read(query[:1], key, table[:1], 0, 1, 4)[0]
    assert set(found.tolist()) == {int(table[0, -1]), *table[0][logits[:-1].topk(4).indices].tolist()}


def test_a_key_along_one_heads_query_wins_though_the_others_dislike_it(tiny):
    query, key, _, table = pool_inputs(tiny, SIZE)
    query[0, 1:] = -query[0, :1]
    key[table[0, 20], 0] = 50 * query[0, 0]
    assert int(table[0, 20]) in slots_to_read(query, key, table, 2, 4, 1)[0].tolist()


def test_where_the_slots_lie_does_not_matter(tiny):
    query, key, value, table = pool_inputs(tiny, SIZE)
    order = torch.randperm(len(key), generator=torch.Generator().manual_seed(5))
    place = order.argsort()
    moved = place[table.clamp(min=0)].masked_fill(table < 0, -1)
    here = paged_attention(query, key, value, slots_to_read(query, key, table, 2, 4, 6), 0.3)
    there = paged_attention(query, key[order], value[order], slots_to_read(query, key[order], moved, 2, 4, 6), 0.3)
    torch.testing.assert_close(here, there)


def test_the_librarys_attention_over_copied_rows_is_the_same(tiny):
    query, key, value, table = pool_inputs(tiny, SIZE)
    torch.testing.assert_close(
        gathered_attention(query, key, value, table, 0.3), paged_attention(query, key, value, table, 0.3)[0]
    )


def test_its_checks_hold(tiny):
    results = run_checks(TokenSelectPaged(), tiny)
    assert results and all(r.passed for r in results), [r for r in results if not r.passed]


def test_workloads_count_what_is_read(tiny):
    found = {w.name: w for w in TokenSelectPaged().workloads(tiny)}
    step = found["decode step, 32768 slots"]
    assert step.details["slots_read"] == 2688
    # Four query and two key/value heads of eight numbers in float32, two requests.
    assert step.bytes_moved == 2 * 2 * 8 * 4 * (32768 + 2 * 2688)
    assert step.details["bound_by_memory"] == round(2 * 32768 / (32768 + 2 * 2688), 3)
