"""The merged tree: both sources, chances that follow outcomes, and its checks."""

import pytest
import torch

from harness.kinds.speculative import DraftTree, Step
from harness.kinds.speculative.candidates import Candidates
from harness.kinds.speculative.widths import WidthCosts
from methods.speculative.merged_tree import MergedTree, MergedTreeDecoding


def seen(text, k=2):
    """A source that has read a text."""
    source = Candidates(k, 3)
    source.begin()
    source.ngrams.index(text)
    return source


def test_the_longest_match_in_the_text_is_offered_with_its_length():
    source = seen([1, 2, 3, 9, 2, 3])
    assert {token: key for token, (_, key) in source.after((1, 2, 3), [1, 2, 3, 9, 2, 3]).items()} == {9: (3, 0, 0)}
    assert source.after((7, 8), [1, 2, 3, 9, 2, 3]) == {}


def test_rows_of_two_tokens_go_before_rows_of_one():
    source = seen([])
    source.rows = {(5,): ((1, 2), (3, 1)), (4, 5): ((6, 7), (8, 0))}
    assert {t: key for t, (_, key) in source.after((4, 5), []).items()} == {6: (0, 2, 8), 7: (0, 2, 0)}
    assert {t: key for t, (_, key) in source.after((3, 5), []).items()} == {1: (0, 1, 3), 2: (0, 1, 1)}


def test_a_token_of_both_sources_is_one_candidate():
    source = seen([4, 5, 6, 4, 5])
    source.rows = {(4, 5): ((6, 7), (8, 0))}
    found = source.after((6, 4, 5), [4, 5, 6, 4, 5])
    assert {token: key for token, (_, key) in found.items()} == {6: (2, 2, 8), 7: (0, 2, 0)}


def test_chances_move_from_the_prior_to_what_is_seen():
    source = seen([])
    key = (3, 0, 0)
    before = source.chance(key)
    for _ in range(500):
        source.learn(key, False)
    assert source.chance(key) < 0.05 < before
    for _ in range(2000):
        source.learn(key, True)
    assert source.chance(key) > 0.95


def test_the_likeliest_slots_are_taken_first_and_as_many_as_pay():
    text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3]
    flat = MergedTree(Candidates(2, 3), 0, 16)
    flat.start(text)
    tree = flat.propose(text, 99)
    assert tree.is_chain and tree.tokens[:4] == (3, 4, 5, 6) and len(tree.tokens) > 6
    steep = MergedTree(Candidates(2, 3), 0, 16)
    steep.costs = WidthCosts((1, 2), (1.0, 4.0))
    steep.start(text)
    assert len(steep.propose(text, 99).tokens) == 2
    assert flat.propose(text, 2).tokens == (3, 4, 5)
    assert flat.propose(text, 0).tokens == flat.propose(text, -1).tokens == (3,)


def test_what_was_right_below_a_node_moves_the_chances_of_its_classes():
    text = [1, 2, 3, 9, 1, 2, 3]
    drafter = MergedTree(Candidates(2, 3), 0, 16)
    drafter.start(text)
    tree = drafter.propose(text, 1)
    assert tree.tokens == (3, 9) and tree.notes[1] == (3, 0, 0)
    before = drafter.source.chance((3, 0, 0))
    assert tree.promise == 1 + before
    drafter.judge(tree, 0, None)
    assert drafter.source.chance((3, 0, 0)) < before
    for _ in range(3):
        drafter.judge(tree, 0, 1)
    assert drafter.source.chance((3, 0, 0)) > before


def test_forwarded_tokens_write_rows_under_one_and_two_tokens():
    drafter = MergedTree(Candidates(2, 3), 4, 16)
    drafter.start([3, 1])
    drafter.propose([3, 1, 5], 9)
    logits = torch.zeros(1, 20)
    logits[0, 7], logits[0, 8] = 5.0, 4.0
    drafter.observe(Step(DraftTree((5,), (-1,)), logits, (0,)))
    rows = drafter.source.rows
    assert rows[(5,)] == rows[(1, 5)] and rows[(5,)][0] == (7, 8)
    drafter.observe(Step(DraftTree((7,), (-1,)), logits, (0,)))
    assert (5, 7) in rows


@pytest.mark.parametrize("method", [MergedTreeDecoding(), MergedTreeDecoding(num_nodes=12, k=3, max_ngram=2)])
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()
