"""When drafting rests, when it is tried again, and how long a chain pays."""

from harness.kinds.speculative.pace import FIRST_REST, LONGEST_REST, Acceptance, Pace
from harness.kinds.speculative.widths import FLAT, WidthCosts

STEEP = WidthCosts((1, 2), (1.0, 2.0))


def shares(pace, emitted, width, steps):
    """Share of plain steps where every drafting step emits as much."""
    plain = 0
    for _ in range(steps):
        if pace.rests():
            plain += 1
        else:
            pace.record(emitted, width, 0.0)
    return plain / steps


def test_drafting_that_pays_never_rests():
    assert shares(Pace(STEEP), 3, 2, 200) == 0


def test_drafting_that_never_pays_rests_nearly_always():
    assert shares(Pace(STEEP), 1, 2, 1000) > 0.9


def test_rests_grow_and_shrink_again_once_drafting_pays():
    pace = Pace(STEEP)
    shares(pace, 1, 2, 500)
    assert pace.rest == LONGEST_REST
    while pace.rests():
        pass
    for _ in range(3):
        pace.record(4, 2, 0.0)
    assert pace.rest == FIRST_REST and not pace.rests()


def test_the_price_of_drafting_counts():
    assert shares(Pace(FLAT), 2, 4, 100) == 0
    costly = Pace(FLAT)
    for _ in range(4):
        costly.record(2, 4, price=3.0)
    assert costly.rests()


def test_a_snapshot_brings_the_pace_back():
    pace = Pace(STEEP)
    shares(pace, 1, 2, 37)
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
