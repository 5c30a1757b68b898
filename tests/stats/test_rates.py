"""The paired difference of rates: its value, its coverage, and what is refused."""

import numpy as np
import pytest

from harness.errors import UsageError
from harness.stats.rates import difference_of_rates


def test_value_is_the_ratio_of_sums():
    found = difference_of_rates([3.0, 10.0], [1.0, 4.0], [2.0, 6.0])
    assert found.value == 1.0 and found.n == 2 and found.low <= 1 <= found.high
    assert difference_of_rates([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]).high == 0


def test_pairing_takes_the_documents_out():
    rng = np.random.default_rng(0)
    base = rng.normal(100, 30, 200)
    found = difference_of_rates(base + 1 + rng.normal(0, 0.1, 200), base, np.full(200, 10.0))
    assert 0.095 < found.low < 0.1 < found.high < 0.105


def test_the_interval_covers_nothing_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for number in range(80):
        sizes = rng.integers(50, 500, 60).astype(float)
        found = difference_of_rates(sizes * rng.normal(0, 0.1, 60), np.zeros(60), sizes, seed=number)
        inside += found.low <= 0 <= found.high
    assert 69 <= inside <= 80


@pytest.mark.parametrize(("a", "sizes"), [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_too_few_documents_are_refused(a, sizes):
    with pytest.raises(UsageError, match="two documents or more"):
        difference_of_rates(a, a, sizes)
