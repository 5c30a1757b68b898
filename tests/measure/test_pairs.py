"""The pair engine: order, state, and figures that a disturbed block does not move."""

from contextlib import contextmanager

import pytest

from harness.measure.pairs import Block, PairRun, run_pairs, timed_sides


def recording_side(name, log):
    @contextmanager
    def side(unit):
        log.append((name, unit, "enter"))
        yield lambda: log.append((name, unit, "call"))
        log.append((name, unit, "exit"))

    return side


def test_sides_take_turns_and_are_entered_for_each_block():
    log = []
    run = run_pairs(timed_sides(recording_side("a", log), recording_side("b", log)), units=range(14))
    called = "".join(name for name, _, what in log if what == "call")
    orders = [called[i : i + 4] for i in range(0, len(called), 4)]
    assert set(orders) == {"abba", "baab"}
    assert 1 <= orders.count("abba") <= 13  # a fair coin: outside with probability 1e-4
    assert [what for _, _, what in log[:3]] == ["enter", "call", "exit"]
    assert [b.side[0] for b in run.blocks] == ["c" if name == "a" else "b" for name in called]


def test_the_same_seed_draws_the_same_order():
    def order(seed):
        log = []
        run_pairs(timed_sides(recording_side("a", log), recording_side("b", log)), range(8), seed=seed)
        return [name for name, _, what in log if what == "call"]

    assert order(1) == order(1) != order(2)


def test_a_spent_budget_stops_on_a_whole_unit_after_the_least_number():
    log = []
    run = run_pairs(
        timed_sides(recording_side("a", log), recording_side("b", log)), range(10), budget_s=0.0, at_least=3
    )
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
