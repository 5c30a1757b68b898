"""The pair engine: order, state, and figures that a disturbed block does not move."""

from contextlib import contextmanager

import pytest

from harness.measure.pairs import Block, PairRun, run_pairs


def recording_side(name, log):
    @contextmanager
    def side(unit):
        log.append((name, unit, "enter"))
        yield lambda: log.append((name, unit, "call"))
        log.append((name, unit, "exit"))

    return side


def test_sides_take_turns_a_b_b_a_and_are_entered_for_each_block():
    log = []
    run = run_pairs(recording_side("a", log), recording_side("b", log), units=range(2))
    calls = [(name, unit) for name, unit, what in log if what == "call"]
    assert calls == [(name, unit) for unit in (0, 1) for name in "abba"]
    assert [what for _, _, what in log[:3]] == ["enter", "call", "exit"]
    assert [b.side for b in run.blocks[:4]] == ["candidate", "baseline", "baseline", "candidate"]


def test_a_spent_budget_stops_on_a_whole_unit_after_the_least_number():
    log = []
    run = run_pairs(recording_side("a", log), recording_side("b", log), range(10), budget_s=0.0, at_least=3)
    assert len(run.blocks) == 12


def blocks_of(candidate, baseline):
    rows = []
    for unit, (a, b) in enumerate(zip(candidate, baseline, strict=True)):
        rows += [Block("candidate", unit, a, a), Block("baseline", unit, b, b)]
        rows += [Block("baseline", unit, b * 5, b), Block("candidate", unit, a * 7, a)]
    return PairRun(rows)


def test_an_interruption_of_one_visit_does_not_move_the_ratio():
    speedup = blocks_of([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]).speedup()
    assert speedup.value == pytest.approx(2.0)
    assert (speedup.low, speedup.high) == pytest.approx((2.0, 2.0))


def test_cpu_share_falls_when_the_process_waits():
    run = PairRun([Block("candidate", 0, 2.0, 0.5), Block("baseline", 0, 2.0, 0.5)])
    assert run.cpu_share == pytest.approx(0.25)
