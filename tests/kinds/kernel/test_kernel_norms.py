"""Error norms of workload results."""

import math

import pytest
import torch

from harness.kinds.kernel import relative_rms, result_error


def test_relative_rms_is_the_distance_over_the_reference_length():
    assert relative_rms(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0])) == pytest.approx(0.2)


def test_a_zero_reference_allows_zero_only():
    zero = torch.zeros(3)
    assert relative_rms(zero, zero) == 0.0
    assert relative_rms(torch.tensor([0.0, 1e-30, 0.0]), zero) == math.inf


@pytest.mark.parametrize("bad", [torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.inf]), torch.ones(3)])
def test_what_is_not_finite_or_has_another_shape_is_infinitely_far(bad):
    assert relative_rms(bad, torch.ones(2)) == math.inf
    assert relative_rms(torch.ones(2), bad) == math.inf


def test_the_worst_of_nested_results_counts():
    reference = [torch.ones(2), (torch.ones(2), "same")]
    assert result_error([torch.ones(2), (torch.full((2,), 1.5), "same")], reference) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("result", "reference"),
    [
        ([torch.ones(1)], [torch.ones(1), torch.ones(1)]),
        (torch.ones(1), [torch.ones(1)]),
        ([1], torch.ones(1)),
        (torch.ones(1), 1),
        ("a", "b"),
    ],
)
def test_results_of_another_structure_are_infinitely_far(result, reference):
    assert result_error(result, reference) == math.inf


def test_equal_values_and_empty_results_have_no_error():
    assert result_error({"a": 1}, {"a": 1}) == 0.0
    assert result_error([], []) == 0.0
    assert result_error(None, None) == 0.0
    assert relative_rms(torch.empty(0), torch.empty(0)) == 0.0
