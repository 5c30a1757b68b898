"""The dynamic program against all ordered trees."""

import itertools
from functools import cache

import pytest

from harness.kinds.speculative.tree_program import best_tree, plan
from harness.kinds.speculative.widths import FLAT, WidthCosts

CHANCES = (0.6, 0.25, 0.1)


@cache
def all_trees(size, depth, branches):
    """Every ordered tree of exactly ``size`` nodes."""
    if size == 1:
        return [()]
    if depth == 0:
        return []
    found = []
    for count in range(1, branches + 1):
        for sizes in itertools.product(range(1, size), repeat=count):
            if sum(sizes) == size - 1:
                found += itertools.product(*(all_trees(s, depth - 1, branches) for s in sizes))
    return found


def value(shape, chances):
    """Expected emitted tokens."""
    return 1 + sum(chance * value(child, chances) for chance, child in zip(chances, shape, strict=False))


def size(shape):
    return 1 + sum(map(size, shape))


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("nodes", range(1, 8))
@pytest.mark.parametrize("chances", [CHANCES, (0.4, 0.35, 0.2), (0.9, 0.0, 0.0)])
def test_the_best_tree_is_that_of_a_full_search(nodes, depth, chances):
    best = max(value(shape, chances) for n in range(1, nodes + 1) for shape in all_trees(n, depth, 3))
    expected, shape = best_tree(chances, nodes, depth)
    assert expected == pytest.approx(best) == pytest.approx(value(shape, chances))
    assert size(shape) <= nodes


def test_more_nodes_and_more_depth_never_hurt():
    values = [[best_tree(CHANCES, m, depth)[0] for m in range(1, 12)] for depth in range(1, 6)]
    for row in [*values, *map(list, zip(*values, strict=True))]:
        assert row == sorted(row)


def test_one_good_child_gives_a_chain():
    shape = best_tree((0.8, 0.0, 0.0), 5, 9)[1]
    assert shape == (((((),),),),)


def test_the_plan_weighs_tokens_against_their_cost():
    steep = WidthCosts((1, 2), (1.0, 3.0))
    assert size(plan(CHANCES, FLAT, 0.0, range(2, 10), 6)) == 9
    assert size(plan(CHANCES, steep, 0.0, range(2, 10), 6)) == 2
    # A dear draft forward makes shallow trees.
    deep, flat = plan(CHANCES, FLAT, 0.0, [7], 6), plan(CHANCES, FLAT, 5.0, [7], 6)
    assert value(deep, CHANCES) > value(flat, CHANCES)
