"""Quest's bound holds for every slot of a page, and pages of one slot make it the oracle."""

import torch

from harness.kinds.pruning.paging import page_summaries
from harness.subjects.views import QueryView
from methods.pruning.kv_oracle_topk import KvOracleTopk
from methods.pruning.kv_quest import KvQuest


def made_view(slots=45):
    generator = torch.Generator().manual_seed(slots)
    queries, keys = (torch.randn(1, heads, n, 8, generator=generator) for heads, n in ((4, 1), (2, slots)))
    return QueryView(5, 9, "decode", queries, keys, None, slots - 1, 1.0, {})


def test_a_pages_score_is_at_least_each_of_its_logits():
    view, method = made_view(), KvQuest(page=8)
    scores = method.page_scores(view, page_summaries(view, 8, method.summary))
    for head in range(4):
        for slot in range(45):
            logit = float(view.keys_BGND[0, head // 2, slot] @ view.queries_BHTD[0, head, 0])
            assert scores[0, head, 0, slot // 8] >= logit - 1e-5


def test_with_pages_of_one_slot_it_is_the_oracle():
    view = made_view()
    ours = KvQuest(page=1, tokens=12).select(view).index_BSTK
    oracle = KvOracleTopk(tokens=12).select(view).index_BSTK
    assert torch.equal(ours.sort(-1).values, oracle.sort(-1).values)


def test_the_budget_is_spent_in_whole_pages():
    chosen = KvQuest(page=8, tokens=30).select(made_view())
    # Three pages; the own one, slots 40 to 44, is the short last page.
    assert chosen.valid_BSTK.sum(-1).unique().tolist() == [8 + 8 + 5]
    assert KvQuest(page=8, tokens=3).select(made_view()).valid_BSTK.sum(-1).unique().tolist() == [5]


def test_the_first_two_layers_are_dense_by_default():
    assert KvQuest().dense_layers == 2
