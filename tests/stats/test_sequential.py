"""The rule, the looks, and how often they are wrong."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.errors import UsageError
from harness.stats import sequential
from harness.stats.paired import MAX_BLOCKS, Bounds, signed_rank_bounds
from harness.stats.sequential import (
    FIRST_LOOK,
    INCONCLUSIVE,
    PASS,
    REGRESSION,
    Design,
    decide,
    judge,
    look_sizes,
    run_looks,
)

DESIGN = Design(margin=0.05, floor=0.01, false_alarm=0.01, false_pass=0.05)


def normal(mean, sd, n=400, seed=0):
    return list(np.random.default_rng(seed).normal(math.log1p(mean), sd, n))


def first(values):
    """A source of blocks that never runs out, and the sizes that were asked of it."""
    asked = []

    def more(n):
        asked.append(n)
        return {"time": values[:n]}

    return more, asked


@pytest.mark.parametrize(
    ("low", "high", "outcome", "note"),
    [
        (-0.02, 0.04, PASS, ""),
        (None, 0.04, PASS, ""),
        (0.02, 0.04, PASS, "slower, within the margin"),
        (-0.06, -0.02, PASS, "faster"),
        (-0.06, -0.005, PASS, ""),
        (0.02, 0.06, REGRESSION, ""),
        (0.02, None, REGRESSION, ""),
        (0.06, 0.08, REGRESSION, ""),
        (0.005, 0.06, INCONCLUSIVE, ""),
        (-0.02, 0.06, INCONCLUSIVE, ""),
        (None, 0.06, INCONCLUSIVE, ""),
        (0.005, None, INCONCLUSIVE, ""),
        (None, None, INCONCLUSIVE, ""),
    ],
)
def test_the_rule(low, high, outcome, note):
    ends = [None if end is None else math.log1p(end) for end in (low, high)]
    verdict = decide(Bounds(0.0, *ends, 12), DESIGN)
    assert (verdict.outcome, verdict.note) == (outcome, note)
    assert verdict.low == (None if low is None else pytest.approx(1 + low))
    assert verdict.high == (None if high is None else pytest.approx(1 + high))


def test_a_bound_on_the_line_decides_nothing():
    on = Bounds(0.03, math.log1p(DESIGN.floor), math.log1p(DESIGN.margin), 12)
    assert decide(on, DESIGN).outcome == INCONCLUSIVE


@pytest.mark.parametrize(("margin", "floor"), [(0.02, 0.03), (0.02, 0.02), (0.02, -0.01), (0.02, math.nan)])
def test_a_margin_that_is_not_above_the_floor_is_refused(margin, floor):
    with pytest.raises(UsageError, match="noise floor"):
        Design(margin, floor, 0.01, 0.05)


def test_the_refusal_names_both_figures():
    with pytest.raises(UsageError, match=r"2\.00%.*3\.50%"):
        Design(0.02, 0.035, 0.01, 0.05)


@pytest.mark.parametrize("planned", [1, FIRST_LOOK - 1, FIRST_LOOK, FIRST_LOOK + 1, 50, 300, MAX_BLOCKS])
def test_looks_grow_and_end_at_the_plan(planned):
    sizes = look_sizes(planned)
    assert sizes[-1] == planned
    assert sizes == sorted(set(sizes))
    assert planned < FIRST_LOOK or sizes[0] == FIRST_LOOK
    assert len(sizes) <= 14


def test_looks_stay_within_what_bounds_can_hold():
    assert look_sizes(10_000)[-1] == MAX_BLOCKS
    assert look_sizes(0) == [1]


@pytest.mark.parametrize(("mean", "outcome"), [(0.0, PASS), (0.2, REGRESSION)])
def test_a_clear_case_stops_early(mean, outcome):
    more, asked = first(normal(mean, 0.01))
    verdict = run_looks(more, 300, {"time": DESIGN})["time"]
    assert verdict.outcome == outcome
    assert verdict.bounds.n == asked[-1] <= 34
    assert verdict.looks == len(asked)
    assert verdict.ratio == pytest.approx(1 + mean, abs=0.01)


def test_an_unclear_case_looks_up_to_the_plan():
    more, asked = first(normal(0.02, 0.5))
    verdict = run_looks(more, 120, {"time": DESIGN})["time"]
    assert verdict.outcome == INCONCLUSIVE
    assert asked == look_sizes(120)
    assert (verdict.bounds.n, verdict.looks) == (120, len(asked))


@pytest.mark.parametrize("measured", [400, 60, 7])
def test_the_whole_error_is_spent_and_no_more(monkeypatch, measured):
    """Also where the budget ends before the plan, and the look that finds this out is the last."""
    shares, plain = [], sequential.judge

    def noted(values, design, share):
        shares.append((len(values), share))
        return plain(values, design, share)

    monkeypatch.setattr(sequential, "judge", noted)
    run_looks(first(normal(0.02, 0.5)[:measured])[0], 120, {"time": DESIGN})
    assert math.fsum(share for _, share in shares) == pytest.approx(1)
    assert all(share > 0 for _, share in shares)
    end = min(120, measured)
    assert [n for n, _ in shares] == [*(n for n in look_sizes(120) if n < end), end]
    for n, share in shares[:-1]:
        assert math.fsum(s for m, s in shares if m <= n) == pytest.approx(n / 120), share


def test_the_last_look_has_what_is_left():
    values = normal(0.02, 0.5)[:60]
    verdict = run_looks(first(values)[0], 120, {"time": DESIGN})["time"]
    left = 1 - 48 / 120
    assert verdict == judge(values, DESIGN, left).__class__(
        INCONCLUSIVE, signed_rank_bounds(values, 0.01 * left, 0.05 * left), looks=look_sizes(120).index(68) + 1
    )


def test_a_decided_metric_stays_decided_while_another_looks_on():
    """The first is clear at once; what comes later would turn it over."""
    turning = [0.3 + 0.001 * i for i in range(12)] + [-5.0] * 400
    blocks = {"clear": turning, "unclear": normal(0.02, 0.5)}
    verdicts = run_looks(lambda n: {k: v[:n] for k, v in blocks.items()}, 100, {"clear": DESIGN, "unclear": DESIGN})
    assert (verdicts["clear"].outcome, verdicts["clear"].bounds.n) == (REGRESSION, 12)
    assert verdicts["unclear"].bounds.n == 100
    assert judge(turning[:100], DESIGN, 1).outcome == PASS


def test_designs_of_metrics_differ():
    values = normal(0.03, 0.005)
    designs = {"loose": Design(0.10, 0.01, 0.01, 0.05), "strict": Design(0.02, 0.01, 0.01, 0.05)}
    verdicts = run_looks(lambda n: dict.fromkeys(designs, values[:n]), 200, designs)
    assert {name: v.outcome for name, v in verdicts.items()} == {"loose": PASS, "strict": REGRESSION}
    assert verdicts["loose"].note == "slower, within the margin"


def rates(mean, design, planned=40, runs=500, seed=0):
    """Outcomes of runs with heavy-tailed symmetric noise: one block in ten is hit by a burst."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.01, (runs, planned)) + rng.normal(0, 0.4, (runs, planned)) * (
        rng.random((runs, planned)) < 0.1
    )
    blocks = math.log1p(mean) + noise
    found = [run_looks(lambda n, b=b: {"time": b[:n]}, planned, {"time": design})["time"].outcome for b in blocks]
    return {outcome: found.count(outcome) for outcome in (PASS, REGRESSION, INCONCLUSIVE)}


def within(errors, runs, rate):
    """Whether so many errors can be, at one in a thousand, where the rate is kept."""
    return stats.binomtest(errors, runs, rate, alternative="greater").pvalue > 0.001


def test_equal_sides_alarm_as_seldom_as_is_said():
    """No look may pass, so each is a chance of a false alarm; the floor is zero."""
    found = rates(0.0, Design(margin=0.02, floor=0.0, false_alarm=0.1, false_pass=1e-15), runs=1000)
    assert found[PASS] == 0
    assert within(found[REGRESSION], 1000, 0.1)
    assert found[REGRESSION] >= 30, "a rule that never alarms would be safe and useless"


def test_a_slow_down_of_the_margin_passes_as_seldom_as_is_said():
    found = rates(0.02, Design(margin=0.02, floor=0.0, false_alarm=1e-15, false_pass=0.1))
    assert found[REGRESSION] == 0
    assert within(found[PASS], 500, 0.1)


def test_a_real_slow_down_is_found():
    design = Design(margin=0.02, floor=0.01, false_alarm=0.0005, false_pass=0.05)
    assert rates(0.05, design, planned=100, runs=200)[REGRESSION] >= 190
