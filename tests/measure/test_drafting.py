"""Figures of drafting from continuations written by hand."""

import pytest

from harness.measure.drafting import accepted_by_place, divergence, drafting
from harness.subjects.requests import Generation


def drafted(steps, **counts):
    """A continuation with these steps, a second long after its first token."""
    return Generation(
        prompt_tokens=3,
        tokens=list(range(sum(steps))),
        stamps_s=[1.0] + [2.0] * (sum(steps) - 1),
        steps=steps,
        counts={"width_cost": 4.0, "plain_steps": 1.0, "drafted_tokens": 6.0} | counts,
        seconds={"draft": 0.3, "verify": 0.6, "observe": 0.1, "forward": 0.5, "draft_forward": 0.2},
    )


def values(figures):
    """Figures by name, with the phase where there is one."""
    return {(m.metric, m.phase) if m.phase else m.metric: m.value for m in figures}


def test_shares_counts_and_the_bound():
    rows = [drafted([1, 3, 1]), drafted([1, 2, 2], width_cost=2.0, plain_steps=0.0)]
    found = values(drafting(rows, [[rows[0]], [rows[1]]]))
    assert found["speedup_bound"] == pytest.approx((4 / 4 * 4 / 2) ** 0.5)
    assert found["plain_step_share"] == pytest.approx(1 / 4)
    assert found["drafted_tokens_per_step"] == pytest.approx(12 / 4)
    assert found["draft_time_share"] == pytest.approx(0.3)
    assert found["host_time_share"] == pytest.approx(0.3)
    assert found["accepted_share", "1"] == pytest.approx(3 / 4)
    assert found["accepted_share", "2"] == pytest.approx(1 / 4)
    assert ("accepted_share", "3") not in found


def test_a_decoder_that_does_not_draft_has_no_such_figures():
    row = Generation(prompt_tokens=1, tokens=[1, 2], stamps_s=[0.0, 1.0], steps=[1, 1])
    assert drafting([row], [[row]]) == []
    assert accepted_by_place([1, 1]) == []


def test_divergence_counts_equal_texts_and_common_beginnings():
    ours = [Generation(prompt_tokens=1, tokens=[1, 2, 3]), Generation(prompt_tokens=1, tokens=[4, 5, 6])]
    theirs = [Generation(prompt_tokens=1, tokens=[1, 2, 3]), Generation(prompt_tokens=1, tokens=[4, 9, 6])]
    assert values(divergence(ours, theirs)) == {"same_text_share": 0.5, "common_prefix_tokens": 2.0}
