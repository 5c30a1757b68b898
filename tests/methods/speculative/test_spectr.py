"""k-SEQ by exact enumeration and against the optimal transport, and the method's checks."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from harness.kinds.speculative.checks import _Checks
from harness.kinds.speculative.verify import recursive_rejection
from methods.speculative.spectr import SpecTr, deflation, k_seq
from tests.kinds.speculative.test_verify_rules import acceptance, law_of, pair


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_law_is_the_target_s(k):
    for seed in range(12):
        q, p = pair(seed, 4)
        assert torch.allclose(law_of(k_seq, q, p, k), q, atol=1e-9)


def test_one_sequence_is_speculative_sampling():
    for seed in range(10):
        q, p = pair(seed, 4)
        assert deflation(p, q, 1)[0] == 1.0
        assert acceptance(k_seq, q, p, 1) == pytest.approx(float(torch.minimum(p, q).sum()))


def optimum(q, p, k):
    """Most acceptance of any rule: the linear program over couplings of draws and output."""
    draws = list(itertools.product(range(len(q)), repeat=k))
    weights = [float(torch.prod(p[list(d)])) for d in draws]
    gain = np.array([[1.0 if x in d else 0.0 for x in range(len(q))] for d in draws])
    rows, wanted = [], []
    for i, weight in enumerate(weights):
        row = np.zeros_like(gain)
        row[i] = 1
        rows.append(row.ravel())
        wanted.append(weight)
    for x in range(len(q)):
        column = np.zeros_like(gain)
        column[:, x] = 1
        rows.append(column.ravel())
        wanted.append(float(q[x]))
    return -linprog(-gain.ravel(), A_eq=np.array(rows), b_eq=wanted).fun


@pytest.mark.parametrize(("k", "share"), [(2, 1 - 0.5**2), (3, 1 - (2 / 3) ** 3)])
def test_acceptance_is_near_the_optimum_and_above_recursion_on_average(k, share):
    ours, recursive = [], []
    for seed in range(8):
        q, p = pair(seed, 4)
        best = optimum(q, p, k)
        ours.append(acceptance(k_seq, q, p, k) / best)
        recursive.append(acceptance(recursive_rejection, q, p, k) / best)
    assert min(ours) >= share - 1e-9 and max(ours) <= 1 + 1e-9
    assert sum(ours) > sum(recursive)


def test_more_sequences_accept_more():
    for seed in range(5):
        q, p = pair(seed, 4)
        found = [acceptance(k_seq, q, p, k) for k in (1, 2, 3, 4)]
        assert found == sorted(found)


def test_equal_laws_are_always_accepted():
    q, _ = pair(0, 4)
    assert k_seq(q, [0, 2], q.expand(2, -1))[0][0] == 1.0


def test_sequences_share_nodes_where_they_agree_and_keep_their_number(tiny):
    checks = _Checks(SpecTr(draft="layers:1", k=4, length=3), tiny)
    asked = checks.request([checks.prompts[0]], 12, temperature=0.3, seed=4)
    with checks.opened() as drafting:
        inner, trees = drafting.decoder.drafter.propose, []
        drafting.decoder.drafter.propose = lambda *a: trees.append(inner(*a)) or trees[-1]
        drafting.generate(asked)
    for tree in trees:
        for node, draws in enumerate(tree.draws or ()):
            assert set(draws) == set(tree.children[node])
            reached = 4 if node == 0 else sum(tree.draws[tree.parents[node]].count(node) for _ in (0,))
            assert len(draws) in (0, reached)


@pytest.mark.parametrize("method", [SpecTr(draft="noised:0.1"), SpecTr(draft="noised:0.1", k=2, length=3)])
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()
