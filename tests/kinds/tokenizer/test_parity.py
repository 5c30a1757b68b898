"""Premiums and the Gini coefficient by hand."""

import numpy as np
import pytest

from harness.errors import EnvironmentFailed
from harness.kinds.tokenizer import parity as module
from harness.kinds.tokenizer.parity import Parity, gini, parity
from harness.subjects.tiny import ByteIds

LINES = {"de": ["abcd", "ab"], "en": ["ab", "c"], "hi": ["\u0939\u093f", "\u0939"]}


def figures(lines):
    return {(m.metric, m.phase): m for m in parity(ByteIds(), lines)}


def test_premiums_are_ratios_of_sums():
    found = figures(LINES)
    assert found["parity_premium", "de"].value == 6 / 3 and found["parity_premium", "hi"].value == 9 / 3
    assert found["parity_premium", ""].value == 2.5 and found["parity_premium_max", ""].value == 3.0
    assert found["parity_gini", ""].value == pytest.approx((3 + 6 + 3) * 2 / (2 * 9 * 6))
    assert all(m.low <= m.value <= m.high and m.n == 2 for m in found.values())


def test_equal_costs_are_parity():
    found = figures({"en": ["ab", "c"], "xx": ["cd", "e"]})
    assert found["parity_gini", ""].value == 0.0 and found["parity_premium", "xx"].value == 1.0


def test_gini_agrees_with_its_definition():
    costs = np.random.default_rng(0).random((3, 6))
    for row, found in zip(costs, gini(costs), strict=True):
        assert found == pytest.approx(sum(abs(a - b) for a in row for b in row) / (2 * 36 * row.mean()))
    assert gini(np.array([0.0, 0.0, 1.0])) == pytest.approx(2 / 3)


def test_without_the_text_the_probe_warns_and_is_empty(tiny, monkeypatch):
    def fail():
        raise EnvironmentFailed("cannot fetch")

    monkeypatch.setattr(module, "aligned", fail)
    with pytest.warns(UserWarning, match="parity is not measured: cannot fetch"):
        assert list(Parity().measure(tiny)) == []
    monkeypatch.setattr(module, "aligned", lambda: LINES)
    assert len(Parity().measure(tiny)) == 5
