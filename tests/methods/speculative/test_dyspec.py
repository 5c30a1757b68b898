"""DySpec: where slots are taken, what a tree is worth, and its checks."""

import itertools

import pytest
import torch

from harness.kinds.speculative.growing import GrowingTree
from harness.kinds.speculative.slots import grow_by_heap, grow_by_threshold
from harness.kinds.speculative.widths import FLAT, WidthCosts
from harness.subjects.requests import GenerateRequest
from harness.subjects.sampling import Sampler
from methods.speculative.dyspec import DySpec, paying_threshold


class Table:
    """A draft of three tokens whose law depends on the path alone."""

    def __init__(self, seed):
        self.seed, self.paths = seed, {0: ()}

    def _logits(self, path):
        rng = torch.Generator().manual_seed(hash((self.seed, path)) % 2**31)
        return 2 * torch.randn(3, generator=rng)

    def law(self, path):
        return self._logits(path).softmax(-1)

    def root(self, history):
        return self._logits(())

    def grow(self, tokens, parents, nodes):
        for token, parent, node in zip(tokens, parents, nodes, strict=True):
            self.paths[node] = (*self.paths[parent], token)
        return torch.stack([self._logits(self.paths[node]) for node in nodes])


def tree_of(seed, temperature=0.0, stream=0):
    """An empty tree over a table."""
    asked = GenerateRequest(prompts=[[0]], max_new_tokens=9, temperature=temperature, seed=stream)
    return GrowingTree(Table(seed), [0], Sampler(asked, torch.device("cpu")), 0)


def worth(paths, table):
    """Sum over nodes of the draft's probability of their path."""
    total = 0.0
    for path in paths:
        product = 1.0
        for place, token in enumerate(path):
            product *= float(table.law(path[:place])[token])
        total += product
    return total


@pytest.mark.parametrize("seed", range(6))
def test_the_greedy_heap_tree_is_worth_most_of_all_trees_of_its_size(seed):
    tree = tree_of(seed)
    grow_by_heap(tree, 4, 4)
    ours = {tuple(tree.path(node)) for node in range(1, 5)}
    every = [path for depth in range(1, 5) for path in itertools.product(range(3), repeat=depth)]

    def grown(chosen, candidates):
        if len(chosen) == 4:
            yield chosen
            return
        for place, path in enumerate(candidates):
            if len(path) == 1 or path[:-1] in chosen:
                yield from grown({*chosen, path}, candidates[place + 1 :])

    best = max(worth(paths, tree.model) for paths in grown(set(), every))
    assert worth(ours, tree.model) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_values_come_in_falling_order(temperature):
    for seed in range(8):
        taken = grow_by_heap(tree_of(seed, temperature, seed), 8, 6)
        assert taken == sorted(taken, reverse=True)


def test_one_node_is_one_drafted_token():
    tree = tree_of(0, 1.0)
    grow_by_heap(tree, 1, 6)
    assert len(tree.tokens) == 2


def test_a_threshold_of_nothing_fills_the_budget_and_a_high_one_stays_at_the_root():
    full, none = tree_of(1, 1.0), tree_of(1, 1.0)
    grow_by_threshold(full, 0.0, 7, 6)
    grow_by_threshold(none, 1.0, 7, 6)
    assert len(full.tokens) == 8 and len(none.tokens) == 1


def test_children_remember_the_law_they_were_drawn_from():
    tree = tree_of(2, 1.0, 5)
    grow_by_threshold(tree, 0.01, 12, 3)
    drafted = tree.finished()
    for node, children in enumerate(drafted.draws):
        left = tree.law(node).clone() if children else None
        for child in children:
            assert torch.allclose(drafted.laws_NV[child], left, atol=1e-6)
            left[drafted.tokens[child]] = 0
            left = left / left.sum() if left.sum() > 0 else left
        assert len(children) == len(set(children))


def test_a_token_pays_by_the_slope_of_the_measured_cost():
    assert paying_threshold(FLAT, 8) == 0
    assert paying_threshold(WidthCosts((1, 9), (1.0, 2.0)), 8) == pytest.approx(1 / 8)


@pytest.mark.parametrize(
    "method",
    [
        DySpec(draft="noised:0.1"),
        DySpec(draft="noised:0.1", num_nodes=8),
        DySpec(draft="layers:1", num_nodes=5, form="heap"),
    ],
)
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()
