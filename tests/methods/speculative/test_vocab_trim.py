"""Vocabulary trimming: the chosen size against a full search, what is kept, and the checks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.kinds.speculative.changed_drafts import trimmed
from methods.speculative.vocab_trim import VocabTrim, best_size, chosen_tokens


def utility(shares, size, saving, alpha):
    return alpha * float(shares[:size].double().sum()) + (1 - alpha) * saving * (len(shares) - size)


@given(
    counts=st.lists(st.integers(0, 50), min_size=2, max_size=30).filter(any),
    alpha=st.floats(0.05, 0.95),
    saving=st.floats(0.001, 0.2),
    c_min=st.floats(0, 1),
    bounds=st.tuples(st.integers(1, 30), st.integers(1, 30)).map(sorted),
)
def test_the_size_is_that_of_a_full_search(counts, alpha, saving, c_min, bounds):
    shares = torch.tensor(sorted(counts, reverse=True)).double()
    shares = shares / shares.sum()
    low, high = min(bounds[0], len(shares)), min(bounds[1], len(shares))
    size = best_size(shares, saving, alpha, c_min, tuple(bounds))
    allowed = [k for k in range(low, high + 1) if float(shares[:k].sum()) >= c_min - 1e-12]
    if not allowed:
        assert size == high
    else:
        best = max(utility(shares, k, saving, alpha) for k in allowed)
        assert size in allowed and utility(shares, size, saving, alpha) == pytest.approx(best)


def test_only_coverage_keeps_all_that_occurs_and_only_saving_the_least():
    shares = torch.tensor([0.5, 0.3, 0.2, 0.0])
    assert best_size(shares, 0.1, 1.0, 0.0, (1, 4)) == 3
    assert best_size(shares, 0.1, 1e-9, 0.0, (1, 4)) == 1
    assert best_size(shares, 0.1, 1e-9, 0.8, (1, 4)) == 2


def test_frequent_tokens_are_kept_lower_ids_first_and_special_ones_always():
    counts = torch.tensor([0, 5, 5, 9, 0])
    assert chosen_tokens(counts, 2, ()).tolist() == [1, 3]
    assert chosen_tokens(counts, 2, (4,)).tolist() == [1, 3, 4]


def test_a_trimmed_draft_says_the_same_of_its_tokens_and_nothing_of_others(tiny):
    head, subset = tiny.model.lm_head, torch.tensor([3, 77, 200])
    whole, cut = (s.model(torch.tensor([[1, 2, 3]])).logits[0, -1] for s in (tiny, trimmed(tiny, subset)))
    assert torch.allclose(cut[subset], whole[subset], atol=1e-5)
    assert int(cut.isfinite().sum()) == 3
    full = trimmed(tiny, torch.arange(258)).model(torch.tensor([[1, 2, 3]])).logits[0, -1]
    assert torch.allclose(full, whole, atol=1e-5)
    assert tiny.model.lm_head is head


@pytest.mark.parametrize(
    "method", [VocabTrim(draft="noised:0.1", vocab_size=10), VocabTrim(draft="layers:2", num_draft=3, vocab_size=128)]
)
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()
