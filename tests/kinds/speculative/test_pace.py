"""When drafting rests, when it is tried again, and how long a chain pays."""

from math import ceil

import pytest

from harness.kinds.speculative.pace import LOSS, Acceptance, Pace, WatchedPace
from harness.kinds.speculative.widths import WidthCosts


def shares(pace, emitted, cost, steps):
    """Share of plain steps where every drafting step emits as much."""
    plain = 0
    for _ in range(steps):
        if pace.rests():
            plain += 1
        else:
            pace.record(emitted, cost)
    return plain / steps


def test_drafting_that_pays_never_rests():
    assert shares(Pace(), 3, 2.0, 200) == 0


def test_drafting_that_never_pays_rests_nearly_always():
    assert shares(Pace(), 1, 2.0, 1000) > 0.9


@pytest.mark.parametrize("cost", [1.1, 1.5, 2.0, 3.0])
def test_drafting_in_vain_loses_no_more_of_the_steps_than_stated(cost):
    pace, lost, steps = Pace(), 0.0, 20_000
    for _ in range(steps):
        if not pace.rests():
            pace.record(1, cost)
            lost += cost - 1
    assert lost / steps <= LOSS * 1.01 or cost >= 3  # the longest rest is too short for the dearest trials
    assert lost / steps < 0.02


def test_a_rest_is_as_long_as_its_trial_was_dear_and_one_that_pays_ends_it():
    cheap, dear = Pace(), Pace()
    for _ in range(2):
        cheap.record(1, 1.1)
        dear.record(1, 1.8)
    assert (cheap.resting, dear.resting) == (ceil(0.2 / LOSS), ceil(1.6 / LOSS))
    while cheap.rests():
        pass
    assert shares(cheap, 4, 2.0, 300) == 0


def test_the_cost_of_drafting_counts():
    assert shares(Pace(), 2, 1.0, 100) == 0
    costly = Pace()
    for _ in range(4):
        costly.record(2, 4.0)
    assert costly.rests()


def test_a_watched_rest_lasts_until_drafts_would_pay_again():
    pace = WatchedPace()
    assert not pace.rests()
    for _ in range(8):
        pace.record(1, 1.5)
    assert all(pace.rests() for _ in range(500))
    for _ in range(40):
        pace.record(3, 1.5)
    assert not pace.rests()


def test_a_snapshot_brings_the_pace_back():
    pace = Pace()
    shares(pace, 1, 2.0, 37)
    state = pace.snapshot()
    ahead = [pace.rests() for _ in range(5)]
    pace.restore(state)
    assert [pace.rests() for _ in range(5)] == ahead


def test_chances_follow_what_was_accepted_at_each_place():
    acceptance = Acceptance()
    assert acceptance.chance(3) == 0.5
    for _ in range(50):
        acceptance.observe(4, 2)
    assert acceptance.chance(0) > 0.9 and acceptance.chance(1) > 0.9
    assert acceptance.chance(2) < 0.1
    # What was never reached is as the last place that was.
    assert acceptance.chance(9) == acceptance.chance(2)


def test_expected_tokens_are_the_sum_of_the_chances_to_get_so_far():
    acceptance = Acceptance()
    assert acceptance.expected(0) == 1
    assert acceptance.expected(3) == 1 + 0.5 + 0.25 + 0.125
    acceptance.count(1, True)
    assert acceptance.chance(0) == 0.5 < acceptance.chance(1) == acceptance.chance(2)


def test_chains_are_as_long_as_they_pay():
    good, bad = Acceptance(), Acceptance()
    for _ in range(50):
        good.observe(8, 8)
        bad.observe(8, 0)
    gentle = WidthCosts((1, 9), (1.0, 2.0))
    assert good.length(8, gentle) == 8
    assert bad.length(8, gentle) == 1
    assert bad.length(0, gentle) == 0
    state = good.snapshot()
    good.observe(8, 0)
    good.restore(state)
    assert good.chance(0) == state.chance(0)
