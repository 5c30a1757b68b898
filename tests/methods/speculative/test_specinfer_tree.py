"""SpecInfer's tree: its shape, its expansion as it is written, and its checks."""

import pytest

from harness.catalog.spec import MethodSpec
from harness.errors import UsageError
from harness.kinds.speculative.checks import _Checks
from methods.speculative.specinfer_tree import SpecInferTree


def first_tree(method, subject, **sampling):
    """The first drafted tree of a request."""
    checks, trees = _Checks(method, subject), []
    with checks.opened() as drafting:
        inner = drafting.decoder.drafter.propose
        drafting.decoder.drafter.propose = lambda *a: trees.append(inner(*a)) or trees[-1]
        drafting.generate(checks.request([checks.prompts[0]], 12, **sampling))
    return trees[0]


def test_a_greedy_tree_has_the_expansion_s_shape(tiny):
    tree = first_tree(SpecInferTree(draft="layers:1", expansion="2,3,1"), tiny)
    assert [tree.depth.count(d) for d in range(4)] == [1, 2, 6, 6]


def test_drawn_children_are_counted_as_often_as_they_are_drawn(tiny):
    tree = first_tree(SpecInferTree(draft="layers:1", expansion="3,2"), tiny, temperature=0.5, seed=1)
    assert len(tree.draws[0]) == 3 and all(len(tree.draws[child]) == 2 for child in tree.children[0])
    assert tree.laws_NV.shape[0] == len(tree.tokens)


def test_an_expansion_is_written_as_numbers_with_commas():
    assert MethodSpec.parse("specinfer_tree@expansion=2,2,1").build().expansion == "2,2,1"
    with pytest.raises(UsageError, match="2,2,1"):
        MethodSpec.parse("specinfer_tree@expansion=2,x").build()


@pytest.mark.parametrize(
    "method", [SpecInferTree(draft="noised:0.1"), SpecInferTree(draft="noised:0.1", expansion="2,2,1")]
)
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()
