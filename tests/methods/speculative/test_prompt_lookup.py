"""Prompt lookup against a search of the whole text, and its checks."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.kinds.speculative.checks import _Checks, chi_square, exact_law
from methods.speculative.prompt_lookup import NgramIndex, PromptLookup


def looked_up(text, max_ngram, num_draft, room):
    """The definition: the longest n-gram of the end that occurred before, its latest earlier occurrence."""
    for n in range(min(max_ngram, len(text)), 0, -1):
        for end in range(len(text) - 1, n - 1, -1):
            if text[end - n : end] == text[-n:]:
                return text[end : end + min(num_draft, max(room, 0))]
    return []


@given(
    text=st.lists(st.integers(0, 2), min_size=1, max_size=30),
    cuts=st.lists(st.integers(1, 30), max_size=4),
    max_ngram=st.integers(1, 4),
    num_draft=st.integers(1, 5),
    room=st.integers(-1, 8),
)
def test_the_draft_is_that_of_a_full_search_however_the_text_grew(text, cuts, max_ngram, num_draft, room):
    index = NgramIndex(max_ngram, num_draft)
    index.start(text[:1])
    for length in sorted({min(cut, len(text)) for cut in cuts} | {len(text)}):
        tree = index.propose(text[:length], room)
        assert tree.is_chain and tree.tokens[0] == text[length - 1]
        assert list(tree.tokens[1:]) == looked_up(text[:length], max_ngram, num_draft, room)


def test_the_longest_match_goes_before_the_latest():
    index = NgramIndex(3, 2)
    assert index.propose([1, 2, 9, 9, 2, 8, 8, 1, 2], 9).tokens == (2, 9, 9)
    index.start(())
    assert index.propose([2, 9, 9, 2, 8, 8, 2], 9).tokens == (2, 8, 8)
    index.start(())
    assert index.propose([1, 2, 3], 9).tokens == (3,)


def test_a_new_request_forgets_the_last_text():
    index = NgramIndex(2, 3)
    index.propose([1, 2, 3, 1], 9)
    index.start([5, 1])
    assert index.propose([5, 1], 9).tokens == (1,)


def test_a_draft_promises_what_its_places_have_kept_of_late():
    index = NgramIndex(2, 3)
    tree = index.propose([1, 2, 3, 1], 9)
    assert tree.tokens == (1, 2, 3, 1) and tree.promise == 1 + 0.5 + 0.25 + 0.125
    for _ in range(50):
        index.judge(tree, 0, 1)
        index.judge(tree, 1, None)
        index.judge(tree, 3, None)  # the chain ends there: nothing was drafted, so nothing was wrong
    assert index.acceptance.chance(0) > 0.9 and index.acceptance.chance(1) < 0.1
    assert index.propose([1, 2, 3, 1], 9).promise == pytest.approx(2, abs=0.2)


def test_all_checks_hold(tiny):
    for method in (PromptLookup(), PromptLookup(num_draft=7), PromptLookup(max_ngram=1, num_draft=2)):
        for check in method.checks(tiny):
            check.run()


@pytest.mark.slow
def test_two_sampled_tokens_follow_the_target_s_law(tiny):
    checks = _Checks(PromptLookup(), tiny, forgetful=True)
    asked = checks.request([checks.repetitive] * 6000, 3, temperature=1.0, top_k=4, seed=11)
    with checks.opened() as drafting:
        counts = Counter(tuple(row.tokens) for row in drafting.generate(asked))
    assert chi_square(counts, exact_law(checks.subject, asked, 3)) > 1e-3
