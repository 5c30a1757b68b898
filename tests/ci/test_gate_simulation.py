"""The simulated rule is the gate's rule, the simulated bounds are those of the libraries, and the tables come out."""

import json

import numpy as np
import pytest
from scipy import stats

from ci.bench.bound_rates import LEVELS, bootstrap, sign_flip, signed_rank, student
from ci.bench.gate_simulation import main, new_pairs, process_floors, upper_bound
from ci.bench.noise_models import AUTO_PHI, AUTO_SD, BURST_SHARE, SHAPES, Pairs, Stream
from ci.bench.simulated_rule import OTHER_RULES, Rule, judge_all, rank_sum_below
from harness.measure.noise import floor_of
from harness.stats.paired import signed_rank_bounds
from harness.stats.sequential import INCONCLUSIVE, PASS, REGRESSION, Design, run_looks

NAMES = [INCONCLUSIVE, PASS, REGRESSION]


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_rank_sum_counts_the_walsh_averages():
    ratio_NB = rng().gamma(2, 0.01, (20, 15)) - 0.02
    rows, columns = np.triu_indices(15)
    walsh = (ratio_NB[:, rows] + ratio_NB[:, columns]) / 2
    for value in (-0.01, 0.0, 0.004):
        assert (rank_sum_below(ratio_NB, np.full(20, value)) == (walsh <= value).sum(axis=1)).all()


@pytest.mark.parametrize("planned", [30, 120])
def test_all_looks_end_as_run_looks_does(planned):
    """Real blocks, kept as they are drawn, are judged again one comparison at a time."""

    class Kept(Pairs):
        def more(self, num):
            fresh = super().more(num)
            for row, number in enumerate(self.gate_N):
                drawn[number].extend(fresh[row])
            return fresh

    seen = set()
    for floor, effect in ((0.0, 0.0), (0.0, 0.03), (0.01, 0.02), (0.01, 0.05)):
        drawn = [[] for _ in range(100)]
        stream = Stream(SHAPES["all"], 100, planned * 4, 0.05, rng(planned))
        pairs = Kept(stream, np.arange(100), np.full(100, np.log1p(effect)))
        found = judge_all(pairs, np.full(100, floor), Rule(0.02, 0.01, 0.05, planned))
        design = {"time": Design(0.02, floor, 0.01, 0.05)}
        for number, ratios in enumerate(drawn):
            verdict = run_looks(lambda n, ratios=ratios: {"time": ratios[:n]}, planned, design)["time"]
            assert (verdict.outcome, verdict.bounds.n) == (NAMES[found.outcome_N[number]], found.blocks_N[number])
        seen |= {NAMES[outcome] for outcome in found.outcome_N}
    assert {PASS, REGRESSION} <= seen


def test_noise_is_what_it_says_and_goes_on_between_requests():
    quiet = Stream(SHAPES["skew only"], 2000, 400, 0.0, rng())
    visits = np.concatenate([quiet.visits(10), quiet.visits(10)], axis=1)
    assert visits.std() == pytest.approx(0.02, rel=0.05)
    assert stats.skew(visits.ravel()) == pytest.approx(np.sqrt(2), rel=0.1)
    auto = Stream(SHAPES["autocorrelation"], 4000, 400, 0.0, rng())
    parts = [auto.visits(1)[:, 0] for _ in range(4)]
    covariance = np.cov(parts)
    assert covariance[0, 1] == pytest.approx(AUTO_SD**2 * AUTO_PHI, rel=0.1)
    assert covariance[0, 3] == pytest.approx(AUTO_SD**2 * AUTO_PHI**3, rel=0.15)
    bursts = Stream(SHAPES["bursts"], 2000, 400, 0.0, rng())
    slow = np.concatenate([bursts.visits(3), bursts.visits(30)], axis=1) > 0.15
    assert 0.8 * BURST_SHARE < slow.mean() < BURST_SHARE
    assert slow[:, 2][slow[:, 3]].mean() > 0.6, "a burst lasts several visits, over the seam of two requests"
    drift = Stream(SHAPES["drift"], 2000, 400, 0.0, rng())
    assert np.abs(drift.visits(400)[:, -20:].mean(axis=1)).mean() > 0.04


def test_blocks_cancel_the_run_and_carry_the_slow_down():
    pairs = new_pairs(SHAPES["skew only"], 0.5, 50, np.full(400, np.log(1.1)), 20, rng())
    ratio_NB = pairs.more(50)
    assert ratio_NB.mean() == pytest.approx(np.log(1.1), abs=0.002)
    assert ratio_NB.std() < 0.03
    candidate, baseline = pairs.opening
    assert candidate.shape == baseline.shape == (400, 10)
    assert (candidate - baseline).mean() == pytest.approx(np.log(1.1), abs=0.005)


def test_undecided_comparisons_keep_their_own_stream():
    stream = Stream(SHAPES["skew only"], 5, 40, 1.0, rng())
    level = stream.level_N.copy()
    stream.keep(np.array([False, True, False, True, True]))
    assert (stream.level_N == level[[1, 3, 4]]).all()
    assert stream.visits(200).mean(axis=1) == pytest.approx(level[[1, 3, 4]] + 0.028, abs=0.01)


def test_bounds_are_those_of_the_harness_and_of_scipy():
    ratio_RB = rng().gamma(2, 0.01, (3, 30)) - 0.02
    ranks, t, flip, boot = (f(ratio_RB, rng(1)) for f in (signed_rank, student, sign_flip, bootstrap))
    for place, level in enumerate(LEVELS):
        for row, values in enumerate(ratio_RB):
            ours = signed_rank_bounds(values, level, level)
            assert (ranks["signed-rank"][place][0][row], ranks["signed-rank"][place][1][row]) == (ours.low, ours.high)
            expected = stats.ttest_1samp(values, 0).confidence_interval(1 - 2 * level)
            assert (t["Student t"][place][0][row], t["Student t"][place][1][row]) == pytest.approx(tuple(expected))
    for name, method in (("bootstrap percentile", "percentile"), ("bootstrap BCa", "BCa")):
        theirs = stats.bootstrap((ratio_RB,), np.mean, axis=1, confidence_level=0.9, method=method, rng=rng(2))
        scale = ratio_RB.std(axis=1) / np.sqrt(30)
        assert np.abs(boot[name][0][0] - theirs.confidence_interval.low).max() < 0.1 * scale.max()
        assert np.abs(boot[name][0][1] - theirs.confidence_interval.high).max() < 0.1 * scale.max()
    assert np.abs(flip["sign-flip"][0][0] - t["Student t"][0][0]).max() < 0.002


def test_a_sign_flip_bound_is_where_its_exact_test_turns():
    values = rng().gamma(2, 0.01, 12) - 0.015
    for place, level in enumerate(LEVELS):
        low, high = (end[0] for end in sign_flip(values[None], rng(1))["sign-flip"][place])
        for sign, end in ((1, low), (-1, high)):
            below, above = (
                stats.permutation_test(
                    (sign * (values - end) + step,), np.mean, permutation_type="samples", alternative="greater"
                ).pvalue
                for step in (1e-6, -1e-6)
            )
            assert below <= level < above


def test_rules_of_other_tools():
    base = np.log(1 + np.linspace(0, 0.01, 10))[None]
    slower = {
        name: [bool(rule(base + np.log(s), base)[0]) for s in (1.04, 1.06, 1.12)] for name, rule in OTHER_RULES.items()
    }
    assert slower == {
        "min:5%": [False, True, True],
        "mean:10%": [False, False, True],
        "asv": [False, False, True],
    }
    mixed = np.where(np.arange(10) < 4, base, base + np.log(1.5))
    assert not OTHER_RULES["asv"](mixed, base)[0], "the medians differ, the samples do not differ significantly"


def test_machine_floors_follow_the_noise_between_processes():
    quiet, loud = process_floors(20, 0.001, rng()), process_floors(20, 0.02, rng())
    assert np.median(loud) > 3 * np.median(quiet)
    assert quiet.min() > floor_of([0.0005] * 12).value


def test_upper_bound_of_a_share():
    assert upper_bound(0, 299) == pytest.approx(0.01, rel=0.01)
    assert upper_bound(3, 3) == 1.0
    assert stats.binom.cdf(5, 100, upper_bound(5, 100)) == pytest.approx(0.05)


def test_tables_and_figures_come_out_and_a_seed_repeats_them(tmp_path, capsys):
    command = ["--gates", "20", "--comparisons", "5", "--cells", "5%/all", "--seed", "3"]
    found = main([*command, "--json", str(tmp_path / "figures.json")])
    shown = capsys.readouterr().out
    assert json.loads((tmp_path / "figures.json").read_text())["found"] == json.loads(json.dumps(found))
    assert [row["cell"] for row in found["innocent"]] == ["5%/all", "5%/all"]
    assert {row["gates"] for row in found["innocent"]} == {20}
    for title in ("Innocent gates", "guilty comparisons", "Bounds on the same blocks", "Sides in two processes"):
        assert title in shown
    main(command)
    assert capsys.readouterr().out == shown
