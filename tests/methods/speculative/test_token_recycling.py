"""The invariants of Token Recycling: its template, its matrix, and that the matrix changes steps, never tokens."""

import itertools
import random
from collections import Counter
from copy import deepcopy

import pytest
import torch

from harness.kinds.speculative import DraftTree, Step
from harness.kinds.speculative.checks import _Checks, chi_square, exact_law
from harness.subjects.requests import GenerateRequest
from methods.speculative.token_recycling import PUBLISHED_LEVELS, SuccessorMatrix, TokenRecycling, rank_paths

PROMPT = [(13 * i) % 250 for i in range(12)]


def request(prompt=PROMPT, tokens=20, **settings):
    """One row of a fixed length."""
    return GenerateRequest(prompts=[prompt], max_new_tokens=tokens, ignore_eos=True, **settings)


def prefix_closed(paths):
    """Whether every path's parent is a path or the root."""
    return all(path[:-1] in {(), *paths} for path in paths)


def test_the_published_template_has_eighty_nodes_in_six_levels():
    assert [len(level) for level in PUBLISHED_LEVELS] == [8, 21, 25, 15, 8, 3]
    paths = rank_paths(80)
    assert len(paths) == len(set(paths)) == 80
    assert all(len(path) == depth for depth, level in enumerate(PUBLISHED_LEVELS, 1) for path in level)
    assert prefix_closed(paths)


@pytest.mark.parametrize("k", [1, 2, 8])
@pytest.mark.parametrize("num_nodes", [1, 2, 5, 8, 16, 32, 79, 80])
def test_smaller_templates_are_prefix_closed_and_as_large_as_they_can_be(num_nodes, k):
    paths = rank_paths(num_nodes, k)
    available = sum(max(path) < k for level in PUBLISHED_LEVELS for path in level)
    assert prefix_closed(paths) and len(paths) == min(num_nodes, available)
    assert all(rank < k for path in paths for rank in path)


def unrolled(matrix, root, room=99):
    """The drafted texts, as token paths below the root."""
    tree = matrix.propose([3, root], room)
    return {tuple(tree.tokens[n] for n in tree.path_to(node)[1:]) for node in range(1, len(tree.tokens))}


def test_the_tree_is_the_template_unrolled_through_the_matrix():
    matrix = SuccessorMatrix(2, [(0,), (1,), (0, 0), (0, 1), (1, 0)], False)
    matrix.rows = {5: [6, 7], 6: [5, 8], 7: [7, 5]}
    assert unrolled(matrix, 5) == {(6,), (7,), (6, 5), (6, 8), (7, 7)}
    assert unrolled(matrix, 5, room=1) == {(6,), (7,)}
    assert unrolled(matrix, 5, room=0) == unrolled(matrix, 5, room=-1) == set()


def test_nodes_below_an_unwritten_row_are_left_out():
    matrix = SuccessorMatrix(2, [(0,), (1,), (0, 0), (1, 0), (0, 0, 0)], False)
    matrix.rows = {5: [6, 7], 7: [9, 9]}
    assert unrolled(matrix, 5) == {(6,), (7,), (7, 9)}
    assert unrolled(matrix, 4) == set()


def test_a_path_is_counted_where_it_was_reached_and_promises_the_product_of_its_shares():
    matrix = SuccessorMatrix(2, [(0,), (1,), (0, 0), (1, 0)], False)
    assert matrix.chances() == {(): 1.0, (0,): 0.5, (1,): 0.25, (0, 0): 0.25, (1, 0): 0.125}
    matrix.rows = {5: [6, 7], 6: [8, 9]}
    tree = matrix.propose([5], 9)
    assert tree.promise == 2.0  # the row of 7 is not written
    for _ in range(60):
        matrix.judge(tree, 0, tree.tokens.index(6))
        matrix.judge(tree, tree.tokens.index(6), None)
    chances = matrix.chances()
    assert chances[(0,)] > 0.99 > 0.01 > chances[(1,)] and chances[(0, 0)] < 0.01
    assert chances[(1, 0)] == chances[(1,)] / 2


def test_all_forwarded_tokens_write_their_rows_and_the_accepted_path_wins():
    matrix = SuccessorMatrix(3, rank_paths(8, 3), False)
    tree = DraftTree((5, 6, 6, 7), (-1, 0, 0, 0))
    logits = torch.randn(4, 20, generator=torch.Generator().manual_seed(0))
    best = logits.topk(3).indices.tolist()
    matrix.observe(Step(tree, logits, (0, 1)))
    assert matrix.rows == {5: best[0], 6: best[1], 7: best[3]}
    assert all(matrix.rows[tree.tokens[node]][0] == int(logits[node].argmax()) for node in (0, 1))


def spoilt(kind, vocabulary=258):
    """Matrices that draft nonsense."""
    rng = random.Random(0)
    rows = {
        "random": lambda token: [rng.randrange(vocabulary) for _ in range(8)],
        "one token": lambda token: [7] * 8,
        "itself": lambda token: [token] * 8,
    }[kind]
    return {token: rows(token) for token in range(vocabulary)}


@pytest.mark.parametrize("kind", ["random", "one token", "itself"])
@pytest.mark.parametrize("extra", [{}, {"temperature": 0.9, "seed": 3}], ids=["greedy", "sampled"])
def test_no_matrix_changes_the_text(tiny, kind, extra):
    plain = tiny.generate(request(**extra))[0].tokens
    with TokenRecycling(num_nodes=80).apply(tiny) as drafting:
        drafting.decoder.drafter.rows = spoilt(kind)
        assert drafting.generate(request(**extra))[0].tokens == plain


def test_the_text_stays_the_same_after_many_requests(tiny):
    with TokenRecycling(num_nodes=16).apply(tiny) as drafting:
        for seed in range(6):
            prompt = torch.randint(0, 250, (5,), generator=torch.Generator().manual_seed(seed)).tolist()
            row = drafting.generate(request(prompt, 12))[0]
            assert row.tokens == tiny.generate(request(prompt, 12))[0].tokens
            assert sum(row.steps) == 12 and min(row.steps) >= 1


def test_the_true_successors_are_accepted_to_the_full_depth(tiny):
    """With the matrix of the coming text and a chain as template, each step emits the depth and one more."""
    checks = _Checks(TokenRecycling(), tiny)
    for seed in range(50):
        prompt = torch.randint(0, 250, (4,), generator=torch.Generator().manual_seed(seed)).tolist()
        text = tiny.generate(request(prompt, 17))[0].tokens
        if len(set(text[:-1])) == len(text) - 1:
            break
    else:
        pytest.fail("no text without a repeated token")

    class Fixed(SuccessorMatrix):
        def observe(self, step):
            """The matrix is right already."""

    with checks.method.apply(tiny) as drafting:
        matrix = Fixed(1, [(0,) * depth for depth in (1, 2, 3)], False)
        matrix.rows = {a: [b] for a, b in itertools.pairwise(text)}
        drafting.decoder.drafter = matrix
        row = drafting.generate(request(prompt, 17))[0]
    assert row.tokens == text
    assert row.steps == [1, 4, 4, 4, 4]


def test_the_matrix_outlives_requests_unless_told_otherwise(tiny):
    for reset, kept in (("never", True), ("request", False)):
        with TokenRecycling(reset=reset).apply(tiny) as drafting:
            drafting.generate(request())
            matrix = drafting.decoder.drafter
            matrix.start(PROMPT)
            assert bool(matrix.rows) is kept


def test_each_open_method_has_a_matrix_of_its_own(tiny):
    method = TokenRecycling()
    with method.apply(tiny) as one:
        one.generate(request())
        with method.apply(tiny) as other:
            assert not other.decoder.drafter.rows


def test_a_snapshot_is_not_changed_by_further_learning(tiny):
    with TokenRecycling().apply(tiny) as drafting:
        drafting.generate(request())
        state = drafting.decoder.snapshot()
        copy = {token: list(row) for token, row in state[0][0].items()}
        before = deepcopy(state)
        drafting.generate(request([9, 8, 7]))
        assert state == before
        assert copy != drafting.decoder.drafter.rows
        drafting.decoder.restore(state)
        drafting.generate(request([9, 8, 7]))
        assert state == before


def test_all_checks_hold(tiny):
    for method in (TokenRecycling(), TokenRecycling(num_nodes=8), TokenRecycling(num_nodes=80, reset="request")):
        for check in method.checks(tiny):
            check.run()


@pytest.mark.slow
def test_two_sampled_tokens_follow_the_target_s_law(tiny):
    checks = _Checks(TokenRecycling(num_nodes=16), tiny, forgetful=True)
    asked = checks.request([checks.repetitive] * 6000, 3, temperature=1.0, top_k=4, seed=11)
    with checks.opened() as drafting:
        counts = Counter(tuple(row.tokens) for row in drafting.generate(asked))
    assert chi_square(counts, exact_law(checks.subject, asked, 3)) > 1e-3
