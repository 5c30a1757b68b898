"""Rules of verification by exact enumeration: over all draws, what is emitted follows the target's law."""

import itertools

import pytest
import torch

from harness.kinds.speculative.growing import without
from harness.kinds.speculative.verify import recursive_rejection


def laws(seed, size):
    """A target and a draft law of some tokens, in float64."""
    rng = torch.Generator().manual_seed(seed)
    return (torch.rand(size, generator=rng, dtype=torch.float64).pow(2).add(1e-3) for _ in range(2))


def pair(seed, size):
    """Normalised target and draft."""
    q, p = laws(seed, size)
    return q / q.sum(), p / p.sum()


def emitted(rule, q, tokens, rows):
    """Law of the emitted token, given what was drawn."""
    chances, residual = rule(q, tokens, rows)
    out, left = torch.zeros_like(q), 1.0
    for token, chance in zip(tokens, chances, strict=True):
        out[token] += left * chance
        left *= 1 - chance
    return out + left * residual


def law_of(rule, q, p, k):
    """Law of the emitted token over all ``k`` independent draws from ``p``."""
    total = torch.zeros_like(q)
    for tokens in itertools.product(range(len(q)), repeat=k):
        weight = float(torch.prod(p[list(tokens)]))
        total += weight * emitted(rule, q, tokens, p.expand(k, -1))
    return total


def acceptance(rule, q, p, k):
    """Chance that one of ``k`` independent draws is accepted."""
    total = 0.0
    for tokens in itertools.product(range(len(q)), repeat=k):
        refused = 1.0
        for chance in rule(q, tokens, p.expand(k, -1))[0]:
            refused *= 1 - chance
        total += float(torch.prod(p[list(tokens)])) * (1 - refused)
    return total


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 4])
def test_recursive_rejection_of_independent_draws_keeps_the_law(size, k):
    for seed in range(10):
        q, p = pair(seed, size)
        assert torch.allclose(law_of(recursive_rejection, q, p, k), q, atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_recursive_rejection_without_replacement_keeps_the_law(k):
    for seed in range(10):
        q, p = pair(seed, 4)
        total = torch.zeros_like(q)
        for tokens in itertools.permutations(range(4), k):
            rows, weight, left = [], 1.0, p
            for token in tokens:
                rows.append(left)
                weight *= float(left[token])
                left = without(left, token)
                left = torch.zeros_like(p) if left is None else left
            total += weight * emitted(recursive_rejection, q, tokens, torch.stack(rows))
        assert torch.allclose(total, q, atol=1e-12)


def test_one_draw_is_accepted_as_often_as_the_laws_overlap():
    for seed in range(10):
        q, p = pair(seed, 5)
        assert acceptance(recursive_rejection, q, p, 1) == pytest.approx(float(torch.minimum(p, q).sum()))


def test_equal_laws_accept_everything_and_foreign_ones_nothing():
    q, p = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    assert recursive_rejection(q, [0], q[None])[0] == [1.0]
    chances, residual = recursive_rejection(q, [2], p[None])
    assert chances == [0.0] and torch.equal(residual, q)
