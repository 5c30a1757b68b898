"""Progressive quantization: bits that recombine, rows that fetch, and bytes that are counted."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.kinds.checking import run_checks
from harness.kinds.kernel.fixed_point import FixedPoint
from methods.kernel.spatten_quant import SpattenQuant, best_values, fetched_share, progressive_rows


def drawn(keys=20, queries=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, n, 8, generator=generator) for n in (queries, keys, keys)]


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=9), st.integers(2, 8), st.integers(1, 6))
def test_high_and_low_bits_recombine_and_round_to_half_a_step(numbers, high, low):
    x = torch.tensor([numbers])
    fixed = FixedPoint.of(x, high, low)
    top = 2 ** (high + low - 1) - 1
    assert torch.equal(fixed.code, (x / fixed.scale).round().clamp(-top, top).int())
    assert fixed.lsb.min() >= 0 and fixed.lsb.max() < 2**low
    assert fixed.msb.min() >= -(2 ** (high - 1)) and fixed.msb.max() < 2 ** (high - 1)
    assert ((fixed.full - x).abs() <= fixed.scale * 0.5001 + 1e-6).all()
    assert ((fixed.coarse - fixed.full).abs() <= fixed.scale * (2**low - 1) / 2 * 1.0001 + 1e-6).all()


def test_a_head_of_zeros_stays_zero():
    assert not FixedPoint.of(torch.zeros(1, 2, 3), 8, 4).full.any()


def test_a_threshold_above_one_always_fetches_and_zero_never_does():
    query, key, _ = drawn()
    fixed = [FixedPoint.of(x, 6, 6) for x in (query, key)]
    full, every = progressive_rows(*fixed, 1.1, 0.3)
    rough, none = progressive_rows(*fixed, 0.0, 0.3)
    assert every.all() and not none.any()
    assert torch.equal(full, (fixed[0].full @ fixed[1].full.transpose(2, 3) * 0.3).softmax(-1))
    assert torch.equal(rough, (fixed[0].coarse @ fixed[1].coarse.transpose(2, 3) * 0.3).softmax(-1))


def test_rows_that_are_sure_keep_the_high_bits_alone():
    query, key, _ = drawn()
    query[:, 0] *= 30
    fixed = [FixedPoint.of(x, 6, 6) for x in (query, key)]
    weight, fetch = progressive_rows(*fixed, 0.5, 0.3)
    assert not fetch[:, 0].all() and fetch[:, 1:].any()
    rough, _ = progressive_rows(*fixed, 0.0, 0.3)
    full, _ = progressive_rows(*fixed, 1.1, 0.3)
    assert torch.equal(weight[fetch], full[fetch]) and torch.equal(weight[~fetch], rough[~fetch])


def test_at_full_width_it_is_attention_within_the_rounding():
    query, key, value = drawn()
    out, _ = SpattenQuant(high=12, low=8, threshold=1.1).attention(query, key, value, 0.3)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=0.3)
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)


def test_a_higher_threshold_is_nearer_to_full_width_and_fetches_more():
    query, key, value = drawn(keys=60, queries=40)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=0.3)
    errors, shares = [], []
    for threshold in (0.0, 0.1, 0.3, 1.1):
        out, fetch = SpattenQuant(high=4, low=8, threshold=threshold).attention(query, key, value, 0.3)
        errors.append(float((out - expected).norm()))
        shares.append(fetched_share(fetch, 4, 8))
    assert shares == sorted(shares) and shares[0] == 4 / 12 and shares[-1] == 1.0
    assert errors[-1] < 0.1 * errors[0]


def test_bits_are_counted_by_the_formula():
    fetch = torch.tensor([[[True, False, False, False]]])
    assert fetched_share(fetch, 8, 4) == (8 + 4 / 4) / 12


@pytest.mark.parametrize("renormalise", [False, True])
def test_the_best_values_are_those_of_the_highest_probabilities(renormalise):
    weight, value = torch.tensor([[[[0.5, 0.1, 0.3, 0.1]]]]), torch.randn(1, 1, 4, 8)
    found = best_values(weight, value, 2, renormalise)[0, 0, 0]
    expected = 0.5 * value[0, 0, 0] + 0.3 * value[0, 0, 2]
    torch.testing.assert_close(found, expected / 0.8 if renormalise else expected)
    torch.testing.assert_close(best_values(weight, value, 4, renormalise), weight @ value)


def test_its_checks_hold(tiny):
    results = run_checks(SpattenQuant(), tiny)
    assert results and all(r.passed for r in results), [r for r in results if not r.passed]


def test_the_share_of_bits_is_a_figure_of_the_workload(tiny):
    (workload,) = SpattenQuant(threshold=1.1).workloads_at(tiny, SpattenQuant.check_sizes[0])
    assert workload.figures() == {"fetched_share": 1.0}
