"""The tables of prompt trees against enumeration: values, chances, chain lengths, the Markov chain, and the width."""

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.kinds.speculative import DraftTree
from harness.kinds.speculative.prompt_trees import (
    REQUEST_ENDS,
    PromptTree,
    best_candidates,
    best_tree,
    best_trees,
    last_chances,
    predicted_gain,
    solve_chain,
    trees_that_pay,
    trimmed_chains,
    valued,
    yield_of,
)
from harness.kinds.speculative.widths import FLAT, WidthCosts

ACC = ((0.5, 0.2, 0.1), (0.4, 0.15, 0.1), (0.3, 0.1, 0.1))
RISING = WidthCosts((1, 64), (1.0, 8.0))


@st.composite
def accs(draw, depth=3, ranks=3):
    """Chances of exclusive guesses: each depth sums to 1 at most."""
    shares = st.lists(st.integers(0, 9), min_size=ranks + 1, max_size=ranks + 1).filter(any)
    rows = [draw(shares) for _ in range(depth)]
    return tuple(tuple(x / sum(row) for x in row[:ranks]) for row in rows)


def all_paths(acc, depth):
    """Every path of ranks up to a depth, the root included."""
    return [path for d in range(depth + 1) for path in itertools.product(range(len(acc[0])), repeat=d)]


def all_trees(acc, state, limit):
    """Every tree of at most ``limit`` nodes: candidate sets that hold each path's prefix, and all chain lengths."""
    paths = all_paths(acc, state)[1:]
    for count in range(min(len(paths), limit - 1) + 1):
        for chosen in itertools.combinations(paths, count):
            held = {(), *chosen}
            if all(path[:-1] in held for path in chosen):
                for chains in itertools.product(range(len(acc) + 1), repeat=count + 1):
                    if count + 1 + sum(chains) <= limit:
                        yield PromptTree(((), *chosen), chains)


@settings(max_examples=50)
@given(acc=accs(), depth=st.integers(0, 3), count=st.integers(0, 12))
def test_the_best_candidates_are_the_most_valuable_paths(acc, depth, count):
    found = best_candidates(acc, depth, count)
    values = [v for _, v in valued(PromptTree(tuple(all_paths(acc, depth)), ()), acc)]
    wanted = sorted((v for v in values if v > 0), reverse=True)[: count + 1]
    assert [v for _, v in found] == pytest.approx(wanted)
    paths = [path for path, _ in found]
    assert paths[0] == () and all(path[:-1] in paths[:place] for place, path in enumerate(paths) if path)


@settings(max_examples=50)
@given(acc=accs(), count=st.integers(0, 12))
def test_one_node_is_the_last_accepted_one(acc, count):
    """The chances against draws of what is right at each depth; they sum to 1."""
    candidates = best_candidates(acc, 3, count)
    chances = last_chances(candidates)
    assert sum(chances) == pytest.approx(1) and min(chances) >= 0
    held = {path for path, _ in candidates}
    exact = dict.fromkeys(held, 0.0)
    sides = [[*enumerate(row), (None, 1 - sum(row))] for row in acc]
    for outcome in itertools.product(*sides):
        path, chance = (), 1.0
        for _, share in outcome:
            chance *= share
        for rank, _ in outcome:
            if (*path, rank) not in held:
                break
            path = (*path, rank)
        exact[path] += chance
    assert chances == pytest.approx([exact[path] for path, _ in candidates], abs=1e-9)


@settings(max_examples=50)
@given(
    gains=st.lists(st.integers(0, 5), min_size=3, max_size=3),
    shares=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    room=st.integers(0, 9),
)
def test_trimmed_chains_are_the_best_where_each_prompt_adds_less_than_the_one_before(gains, shares, room):
    worth = [0, *itertools.accumulate(sorted(gains, reverse=True))]
    chains = trimmed_chains(shares, worth, room)
    assert sum(chains) <= room

    def total(lengths):
        return sum(share * worth[length] for share, length in zip(shares, lengths, strict=True))

    possible = [c for c in itertools.product(range(4), repeat=len(shares)) if sum(c) <= room]
    assert total(chains) == max(map(total, possible))


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("state", [0, 1, 2])
def test_the_best_tree_is_the_best_of_all(state, limit):
    """Two depths and ranks, all trees: at most three candidates fit and still leave a chain."""
    acc, worth = ((0.5, 0.2), (0.4, 0.15)), (0.0, 0.7, 0.95)
    best = max(yield_of(tree, acc, worth) for tree in all_trees(acc, state, limit))
    tree = best_tree(acc, state, limit, worth)
    assert tree.width <= limit and yield_of(tree, acc, worth) == pytest.approx(best)


@pytest.mark.parametrize("limit", [2, 3, 4])
def test_the_trees_of_all_states_are_the_best_of_all_choices(limit):
    acc = ((0.6, 0.2), (0.5, 0.15))
    choices = [list(all_trees(acc, state, limit)) for state in range(3)]
    best = max(solve_chain(acc, trees).tokens for trees in itertools.product(*choices))
    assert solve_chain(acc, best_trees(acc, limit)).tokens == pytest.approx(best)


def test_the_chain_is_solved_as_walking_it_shows():
    trees = best_trees(ACC, 12)
    chain = solve_chain(ACC, trees)
    assert sum(chain.law) == pytest.approx(1) and min(chain.law) >= -1e-12
    rng, state, tokens, visits, steps = random.Random(0), 0, 0, [0] * 4, 40_000
    for _ in range(steps):
        visits[state] += 1
        right = [rng.choices([0, 1, 2, None], [*row, 1 - sum(row)])[0] for row in ACC]
        path = ()
        while len(path) < len(right) and (*path, right[len(path)]) in trees[state].paths:
            path = (*path, right[len(path)])
        tokens += len(path) + 1
        state = trees[state].chains[trees[state].paths.index(path)]
        state = 0 if rng.random() < REQUEST_ENDS else state
    assert tokens / steps == pytest.approx(chain.tokens, abs=0.02)
    assert [count / steps for count in visits] == pytest.approx(chain.law, abs=0.02)


@given(acc=accs(), limits=st.tuples(st.integers(1, 20), st.integers(1, 20)))
@settings(max_examples=20)
def test_more_room_is_never_worse_and_the_limit_is_held(acc, limits):
    small, large = sorted(limits)
    trees = best_trees(acc, small)
    assert all(tree.width <= small for tree in trees)
    assert all(len(path) <= state for state, tree in enumerate(trees) for path in tree.paths)
    assert solve_chain(acc, best_trees(acc, large)).tokens >= solve_chain(acc, trees).tokens - 1e-6


def test_where_no_guess_is_right_the_tree_is_the_root():
    nothing = ((0.0,) * 3,) * 3
    for trees in (best_trees(nothing, 16), trees_that_pay(nothing, FLAT)):
        assert {tree.width for tree in trees} == {1}
    assert predicted_gain(nothing, trees, FLAT) == pytest.approx(1)


def test_the_width_follows_its_cost():
    cheap, dear = trees_that_pay(ACC, FLAT), trees_that_pay(ACC, RISING)
    assert max(t.width for t in cheap) > max(t.width for t in dear) > 1
    assert predicted_gain(ACC, dear, RISING) > predicted_gain(ACC, cheap, RISING)
    steep = WidthCosts((1, 2), (1.0, 9.0))
    assert max(t.width for t in trees_that_pay(ACC, steep)) == 1


def test_the_nodes_of_a_tree():
    tree = PromptTree(((), (0,), (1,), (0, 2)), (2, 1, 0, 3))
    drafted = DraftTree((9, 5, 6, 7, *tree.prompt_tokens), tree.parents)
    assert tree.width == len(drafted.tokens) == 10
    assert tree.parents == (-1, 0, 0, 1, 0, 4, 1, 3, 7, 8)
    assert tree.prompt_tokens == (-1, -2, -1, -1, -2, -3)
    assert [list(tree.chain_under(node)) for node in range(4)] == [[4, 5], [6], [], [7, 8, 9]]
    for node in range(4):
        for link in tree.chain_under(node):
            assert node in drafted.path_to(link)


@pytest.mark.parametrize("room, deepest", [(-1, 0), (0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (5, 4), (6, 5), (7, 5)])
def test_a_tree_is_cut_to_what_is_still_of_use(room, deepest):
    tree = PromptTree(((), (0,), (1,), (0, 2)), (3, 3, 1, 3)).within(room)
    depth = DraftTree((0,) * tree.width, tree.parents).depth
    assert max(depth) == deepest
    assert all(depth[link] < room for node in range(len(tree.paths)) for link in tree.chain_under(node))


def test_a_law_that_no_state_leaves_is_solved_too():
    """A state that is never left but at a request's end."""
    trees = (PromptTree(((),), (1,)), PromptTree(((),), (1,)))
    assert solve_chain(((1.0,),), trees).law == pytest.approx((REQUEST_ENDS, 1 - REQUEST_ENDS))
    assert torch.tensor(solve_chain(((1.0,),), trees).worth).isfinite().all()
