"""Quality of two methods on the same documents: published examples, error rates, symmetries and degenerate samples.

Error rates of the 0/1 interval, exact by enumeration of all outcomes (worst of 12 shares of discordant documents, 1 to
60 %, with true differences of 0 up to all of them, both sides; n = 5 to 400, with 800 for shares up to 15 %):

    one-sided level           5 %     2.5 %    1 %
    no correction             8.7 %   5.1 %    2.1 %
    corrected by half a pair  5.9 %   3.3 %    1.3 %
    corrected by one pair     4.6 %   2.4 %    1.05 %
    Newcombe's interval       13 %    12 %     7.7 %  (coarser grid, n = 10 to 100)

Where nothing is lost, "worse" is found at most as often as stated at every level tried (5 % to 0.05 %, n = 20 to 400);
far out (0.05 %) the other bound errs with up to 0.08 %.

Coverage of the 95 % interval of other values, 1,000 samples each, 2,000 at n = 20 and 50:

    n                                    5      20     50     200
    normal                               0.959  0.961  0.962  0.948
    lognormal, sigma 1                   0.818  0.921  0.945  0.953
    exponential, a tenth reversed x 3    0.967  0.936  0.936  0.939
    F1, all documents changed            0.960  0.952  0.953  0.945
    F1, 30 % changed                     1.000  1.000  0.949  0.950
    F1, 10 % changed                     1.000  1.000  0.997  0.963
    F1, 3 % changed                      1.000  1.000  1.000  0.995

Coverage with clusters, 95 %, 800 samples each; clusters share an exponential loss, or a chance to lose (0/1 values):

    clusters                             5      10     20     60
    of 5 documents                       0.904  0.945  0.955  0.961
    of 1 to about 8 documents            0.875  0.934  0.944  0.949
    of 1 to about 8 documents, 0/1       0.998  0.991  0.993  0.965
    the second, clusters ignored         0.593  0.618  0.633  0.634

Parts of the 0/1 table and of the second one are computed again below.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.errors import UsageError
from harness.stats.quality import mcnemar, non_inferiority, paired_difference, smallest_detectable
from harness.stats.score import score_interval

BITS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=60)
SCORES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30)


def pairs(gained, lost, both=0, neither=0):
    """0/1 values of candidate and baseline with these counts."""
    candidate = [1] * gained + [0] * lost + [1] * both + [0] * neither
    baseline = [0] * gained + [1] * lost + [1] * both + [0] * neither
    return candidate, baseline


def not_more_than(misses, trials, rate):
    """Whether so many misses agree with a true rate of at most ``rate``."""
    return stats.binomtest(int(misses), trials, rate, alternative="greater").pvalue > 1e-3


# McNemar


def test_mcnemar_on_a_published_example():
    """Airway hyper-responsiveness before and after transplantation (Bentur 2009): 1, 1, 7 and 12 of 21 children."""
    result = mcnemar(*pairs(gained=1, lost=7, both=1, neither=12))
    assert (result.gained, result.lost) == (1, 7)
    assert result.p_two_sided == pytest.approx(0.0703, abs=5e-5)
    assert result.p_worse == pytest.approx(9 / 256)


@given(BITS, st.integers(0, 20), st.integers(0, 20))
def test_concordant_pairs_do_not_change_mcnemar(bits, both, neither):
    candidate, baseline = map(list, zip(*bits, strict=True))
    more = pairs(0, 0, both, neither)
    assert mcnemar(candidate + more[0], baseline + more[1]) == mcnemar(candidate, baseline)


@given(BITS)
def test_swapped_sides_swap_gains_and_losses(bits):
    candidate, baseline = zip(*bits, strict=True)
    one, other = mcnemar(candidate, baseline), mcnemar(baseline, candidate)
    assert (one.gained, one.lost) == (other.lost, other.gained)
    assert one.p_two_sided == pytest.approx(other.p_two_sided)


def test_mcnemar_without_discordant_pairs_and_with_other_values():
    result = mcnemar([1, 0], [1, 0])
    assert (result.p_two_sided, result.p_worse) == (1.0, 1.0)
    with pytest.raises(UsageError, match="0 and 1"):
        mcnemar([0.5, 1], [0, 1])


# The score interval


def test_without_correction_it_is_tangos_published_interval():
    """The children of the example above; a 90 % interval of R's PropCIs; z^2 / (n + z^2) without discordant pairs."""
    assert score_interval(1, 7, 21, 0.025, correction=0) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert score_interval(48, 41, 549, 0.05, correction=0) == pytest.approx((-0.0157, 0.0414), abs=5e-5)
    z2 = stats.norm.isf(0.05) ** 2
    assert score_interval(0, 0, 100, 0.05, correction=0)[1] == pytest.approx(z2 / (100 + z2))


def test_its_bounds_solve_the_score_equation():
    """The nuisance probability is the maximum of the likelihood given the bound, found here by search."""
    gained, lost, n, tail = 3, 9, 60, 0.025
    z = stats.norm.isf(tail)
    for bound, side in zip(score_interval(gained, lost, n, tail), (1, -1), strict=True):
        q = np.linspace(max(0, -bound), (1 - bound) / 2, 2_000_001)[1:-1]
        same = n - gained - lost
        likelihood = gained * np.log(q + bound) + lost * np.log(q) + same * np.log(1 - 2 * q - bound)
        best = q[likelihood.argmax()]
        spread = math.sqrt(n * (2 * best + bound - bound**2))
        assert (gained - lost - n * bound - side) / spread == pytest.approx(side * z, abs=1e-3)


def outcomes(n):
    """All counts (gained, lost) of ``n`` pairs with the corrected interval of each, at a one-sided 2.5 %."""
    return [(b, c, *score_interval(b, c, n, 0.025)) for b in range(n + 1) for c in range(n + 1 - b)]


def test_error_of_each_side_is_at_most_the_stated_by_enumeration():
    n = 30
    table = np.array(outcomes(n))
    for discordant in (0.02, 0.1, 0.3, 0.6):
        for difference in {0.0, 0.02, discordant / 2, discordant}:
            up, down = (discordant + difference) / 2, (discordant - difference) / 2
            law = stats.multinomial(n, [up, down, 1 - discordant])
            chance = law.pmf(np.column_stack([table[:, :2], n - table[:, :2].sum(axis=1)]))
            assert chance.sum() == pytest.approx(1)
            assert chance[table[:, 2] > difference].sum() <= 0.025
            assert chance[table[:, 3] < difference].sum() <= 0.025


@given(BITS)
def test_swapped_sides_flip_the_interval_of_bits(bits):
    candidate, baseline = zip(*bits, strict=True)
    one, other = paired_difference(candidate, baseline), paired_difference(baseline, candidate)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert -1 <= one.low <= one.value <= one.high <= 1


# Other values and clusters


@settings(max_examples=40)
@given(SCORES)
def test_swapped_sides_flip_the_interval_of_scores(scores):
    candidate, baseline = zip(*scores, strict=True)
    one, other = paired_difference(candidate, baseline), paired_difference(baseline, candidate)
    assert one.value == pytest.approx(-other.value)
    if one.low is not None and one.high is not None:
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
        assert one.low <= one.value + 1e-12 and one.value <= one.high + 1e-12


def f1_like(rng, n, changed, drift):
    """Scores with many zeros and ones; the ``changed`` share of documents is answered anew, ``drift`` times as well."""

    def scores():
        kind = rng.integers(0, 3, n)
        return np.where(kind == 0, 0.0, np.where(kind == 1, 1.0, rng.beta(2, 2, n)))

    baseline, again = scores(), scores() * drift
    return np.where(rng.random(n) < changed, again, baseline), baseline, changed * (0.5 * drift - 0.5)


def bits_per_byte(rng, n):
    """Every document loses a little, a few a lot (lognormal)."""
    baseline = rng.normal(1, 0.2, n)
    return baseline + 0.01 * rng.lognormal(0, 1, n), baseline, 0.01 * math.exp(0.5)


LAWS = [
    pytest.param(lambda rng: f1_like(rng, 50, 1.0, 0.9), 0.953, id="F1-all-changed"),
    pytest.param(lambda rng: f1_like(rng, 50, 0.1, 0.6), 0.997, id="F1-tenth-changed"),
    pytest.param(lambda rng: f1_like(rng, 20, 0.03, 0.0), 1.0, id="F1-few-changed"),
    pytest.param(lambda rng: bits_per_byte(rng, 20), 0.921, id="lognormal-20"),
    pytest.param(lambda rng: bits_per_byte(rng, 50), 0.945, id="lognormal-50"),
]


@pytest.mark.parametrize(("draw", "coverage"), LAWS)
def test_coverage_is_that_of_the_table(draw, coverage):
    rng, misses = np.random.default_rng(7), 0
    for seed in range(200):
        candidate, baseline, truth = draw(rng)
        estimate = paired_difference(candidate, baseline, seed=seed)
        misses += not estimate.low <= truth <= estimate.high
    assert not_more_than(misses, 200, 1.0 - coverage)


def test_clusters_widen_what_their_documents_share():
    """Documents of a source share their loss: taken for independent ones they cover the truth in two of three cases."""
    rng, misses, naive = np.random.default_rng(3), 0, 0
    for seed in range(200):
        sizes = 1 + rng.poisson(3, 20)
        label = np.repeat(np.arange(20), sizes)
        baseline = rng.normal(1, 0.2, len(label))
        candidate = baseline + rng.normal(0.02, 0.02, 20)[label] + rng.normal(0, 0.01, len(label))
        by_source = paired_difference(candidate, baseline, clusters=label.tolist(), seed=seed)
        by_document = paired_difference(candidate, baseline, seed=seed)
        assert by_source.n == 20 and by_source.value == pytest.approx(by_document.value)
        misses += not by_source.low <= 0.02 <= by_source.high
        naive += not by_document.low <= 0.02 <= by_document.high
    assert not_more_than(misses, 200, 0.06) and naive > 40


def test_clusters_of_one_document_change_nothing():
    candidate, baseline, _ = f1_like(np.random.default_rng(0), 60, 0.8, 0.8)
    assert paired_difference(candidate, baseline, clusters=list(range(60))) == paired_difference(candidate, baseline)
    bits = pairs(3, 9, 20, 10)
    assert paired_difference(*bits, clusters=list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOP")) == paired_difference(
        *bits
    )


def test_equal_clusters_of_identical_documents_are_the_clusters():
    rng = np.random.default_rng(1)
    candidate, baseline = rng.random(12), rng.random(12)
    whole = paired_difference(candidate, baseline)
    repeated = paired_difference(
        np.repeat(candidate, 4), np.repeat(baseline, 4), clusters=np.repeat(range(12), 4).tolist()
    )
    assert (repeated.low, repeated.high, repeated.n) == pytest.approx((whole.low, whole.high, 12))


def test_same_seed_same_interval():
    candidate, baseline, _ = bits_per_byte(np.random.default_rng(0), 40)
    assert paired_difference(candidate, baseline, seed=1) == paired_difference(candidate, baseline, seed=1)


# Degenerate samples


@pytest.mark.parametrize("n", [3, 20, 200, 2000])
def test_no_difference_seen_is_bounded_by_a_rule_of_three(n):
    """Not narrower than the exact bound 1 - tail ** (1 / n) of an event that never came, and of its order."""
    exact = 1 - 0.025 ** (1 / n)
    estimate = paired_difference([1] * n, [1] * n)
    assert estimate.value == 0 and estimate.low == -estimate.high
    assert exact <= estimate.high <= 2 * exact


def test_no_difference_seen_in_scores_is_bounded_by_their_range():
    scores = [0.25, 0.5, 0.75] * 10
    estimate = paired_difference(scores, scores)
    assert estimate.high == pytest.approx(0.5 * score_interval(0, 0, 30, 0.025)[1])


def test_a_rare_difference_is_not_believed_from_its_variance():
    """One document of a hundred gained a hair; the true mean could still be a loss."""
    scores = np.linspace(0, 1, 100)
    estimate = paired_difference(scores + np.eye(100)[50] * 1e-3, scores)
    assert estimate.low < -0.03 and estimate.high > 0.03


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e200])
def test_the_unit_of_the_values_does_not_matter(scale):
    candidate, baseline, _ = bits_per_byte(np.random.default_rng(0), 30)
    one, other = (non_inferiority(candidate * s, baseline * s, margin=0.1 * s, alpha=0.05) for s in (1.0, scale))
    assert other.verdict == one.verdict and other.p_worse == pytest.approx(one.p_worse)
    assert (other.loss.low, other.loss.high) == pytest.approx(
        (scale * one.loss.low, scale * one.loss.high), rel=1e-9, abs=0
    )
    assert other.detectable == pytest.approx(scale * one.detectable, rel=1e-9, abs=0)


def test_a_constant_difference_is_not_believed_more_for_its_rounding():
    scores = np.random.default_rng(0).random(20)
    estimate = paired_difference(scores + 0.1, scores)  # differences of 0.1 up to the last bit
    assert estimate.value == pytest.approx(0.1) and estimate.high - estimate.low > 0.1


@pytest.mark.parametrize(
    ("candidate", "baseline", "clusters"),
    [([1], [0], None), ([0.3], [0.5], None), ([0.3, 0.4], [0.5, 0.1], ["a", "a"]), ([0.3] * 9, [0.3] * 9, None)],
)
def test_where_nothing_can_be_said_there_is_no_interval(candidate, baseline, clusters):
    estimate = paired_difference(candidate, baseline, clusters=clusters)
    assert estimate.low is estimate.high is None
    assert estimate.value == pytest.approx(np.mean(candidate) - np.mean(baseline))
    judged = non_inferiority(candidate, baseline, margin=0.5, clusters=clusters)
    assert (judged.verdict, judged.p_worse, judged.detectable) == ("inconclusive", None, None)


@pytest.mark.parametrize(
    ("candidate", "baseline", "clusters"),
    [
        ([1, math.nan], [1, 0], None),
        ([1, 0], [math.inf, 0], None),
        ([1, 0], [1], None),
        ([], [], None),
        ([1, 0], [1, 0], ["a"]),
    ],
)
def test_bad_values_are_refused(candidate, baseline, clusters):
    with pytest.raises(UsageError):
        paired_difference(candidate, baseline, clusters=clusters)
    with pytest.raises(UsageError):
        non_inferiority(candidate, baseline, margin=0.1, clusters=clusters)


def test_bad_levels_and_margins_are_refused():
    for call in (
        lambda: paired_difference([1, 0], [1, 1], level=1.0),
        lambda: non_inferiority([1, 0], [1, 1], margin=0.0),
        lambda: non_inferiority([1, 0], [1, 1], margin=math.nan),
        lambda: non_inferiority([1, 0], [1, 1], margin=0.1, alpha=0.5),
        lambda: smallest_detectable(1, 0.05, sd=1.0),
        lambda: smallest_detectable(100, 0.05),
        lambda: smallest_detectable(100, 0.05, sd=1.0, discordant_share=0.1),
        lambda: smallest_detectable(100, 0.05, discordant_share=1.1),
    ):
        with pytest.raises(UsageError):
            call()


# Non-inferiority


@pytest.mark.parametrize(
    ("gained", "lost", "verdict"), [(5, 5, "pass"), (0, 0, "pass"), (0, 60, "worse"), (5, 25, "inconclusive")]
)
def test_the_rule_of_the_verdict(gained, lost, verdict):
    values = pairs(gained, lost, both=600, neither=400 - gained - lost)
    judged = non_inferiority(*values, margin=0.02)
    assert judged.verdict == verdict or (verdict == "inconclusive" and judged.loss.low > 0)
    assert judged.loss.value == pytest.approx((lost - gained) / 1000)
    assert judged.p_worse == mcnemar(*values).p_worse


def test_a_loss_below_the_margin_passes_though_it_is_certain():
    judged = non_inferiority(*pairs(0, 12, both=988), margin=0.05)
    assert judged.verdict == "pass" and judged.loss.low > 0 and judged.p_worse < 0.001


def test_too_few_documents_are_inconclusive():
    assert non_inferiority(*pairs(0, 1, both=9), margin=0.02).verdict == "inconclusive"


def test_direction_of_the_metric():
    rng = np.random.default_rng(0)
    baseline = rng.normal(1, 0.2, 50)
    candidate = baseline + rng.normal(0.1, 0.02, 50)
    loss = non_inferiority(candidate, baseline, margin=0.01, higher_is_better=False)
    gain = non_inferiority(candidate, baseline, margin=0.01, higher_is_better=True)
    assert loss.verdict == "worse" and loss.p_worse < 0.01 and loss.loss.value == pytest.approx(0.1, abs=0.02)
    assert gain.verdict == "pass" and gain.p_worse > 0.99 and gain.loss.value == pytest.approx(-loss.loss.value)


@settings(max_examples=40)
@given(SCORES)
def test_a_bound_above_zero_and_a_small_p_value_agree(scores):
    judged = non_inferiority(*zip(*scores, strict=True), margin=0.1)
    if judged.p_worse is not None and abs(judged.p_worse - 0.05) > 0.001:
        assert (judged.loss.low > 0) == (judged.p_worse < 0.05)


def test_detectable_loss_has_its_power_by_enumeration():
    """The chance that the lower bound lies above 0; whole documents make it jump around the 0.8 asked for."""
    n, share, tail = 200, 0.1, 0.05
    loss = smallest_detectable(n, tail, discordant_share=share)
    up, down = (share + loss) / 2, (share - loss) / 2
    power = 0.0
    for lost in range(60):
        for gained in range(60):
            if lost - gained - 1 > stats.norm.isf(tail) * math.sqrt(lost + gained):
                power += stats.multinomial.pmf([lost, gained, n - lost - gained], n, [up, down, 1 - share])
    assert power == pytest.approx(0.8, abs=0.04)


def test_detectable_loss_shrinks_with_documents_and_grows_with_discord():
    by_n = [smallest_detectable(n, 0.05, discordant_share=0.1) for n in (50, 200, 1000)]
    by_share = [smallest_detectable(500, 0.05, discordant_share=share) for share in (0.0, 0.05, 0.2, 0.5)]
    assert by_n == sorted(by_n, reverse=True) and by_share == sorted(by_share)
    assert smallest_detectable(3, 0.05, discordant_share=0.0) == math.inf
    assert smallest_detectable(400, 0.05, sd=2.0) == pytest.approx(2 * (1.6487 + 0.8425) / 20, rel=1e-3)
