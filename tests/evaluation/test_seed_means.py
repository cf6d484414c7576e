# Reference: arithmetic by hand, scipy's t-tests, and the truth that answers are drawn from.
# Run: pytest tests/evaluation/test_seed_means.py.
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.detectable import smallest_by_error
from evaluation.over_seeds import seed_difference
from evaluation.seed_means import seed_mean


def test_by_hand():
    # 2 seeds x 4 questions of 2 patients (first two, last two). Seeds: 3/4 and 1/4, mean 1/2, sd sqrt(1/8) = 0.354.
    values = np.array([[1.0, 1, 1, 0], [1, 0, 0, 0]])
    found = seed_mean([(values, "aabb")], bounds=(0.0, 1.0))
    assert (found.mean, found.seeds, found.n, found.n_clusters) == (0.5, 2, 4, 2)
    assert found.sd == pytest.approx(math.sqrt(1 / 8))
    # t_1(0.975) = 12.706, times sqrt(1/8) / sqrt(2) = 1/4: far beyond [0, 1], to which it is cut
    assert (found.low, found.high) == (0.0, 1.0)
    assert seed_mean([(values, "aabb")]).high == 1.0
    assert seed_mean([(values, "aabb")]).low == -1.0
    # means of questions 1, 1/2, 1/2, 0 around 1/2: by patient 1/2 and -1/2, each squared / (1 - 1/2) = 1/2, sum 1 / 4²
    # by question 1/2² + 1/2² = 1/2, each / (1 - 1/4): 2/3 / 4² = 1/24; patient alone 1/16 - 1/24 = 1/48
    assert found.se_item == pytest.approx(math.sqrt(1 / 24))
    assert found.se_patient == pytest.approx(math.sqrt(1 / 48))
    # doubly centred, row and column means off, 1/2 on: -1/4 1/4 1/4 -1/4 and its mirror, of each patient 0 together
    assert found.se_seed == pytest.approx(1 / 4)


def test_the_interval_over_seeds_is_the_paired_t_test():
    first, second = np.array([0.50, 0.55, 0.61, 0.47]), np.array([0.57, 0.60, 0.63, 0.56])
    sides = [np.stack([(np.arange(100) < round(100 * a)).astype(float) for a in side]) for side in (first, second)]
    found = seed_mean([(sides[1] - sides[0], range(100))])
    expected = stats.ttest_rel(second, first)
    bounds = expected.confidence_interval(0.95)
    assert (found.mean, found.p, found.df) == pytest.approx((0.0575, expected.pvalue, 3))
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high))
    # t_3(0.975) + t_3(0.8) = 3.182 + 0.978
    assert found.detectable == pytest.approx((3.1824 + 0.9785) * found.sd / 2, rel=1e-3)


def test_each_specialty_counts_once():
    small, large = np.array([[1.0, 1], [1, 0]]), np.zeros((2, 100))
    found = seed_mean([(small, range(2)), (large, range(100))])
    assert found.mean == pytest.approx((0.75 + 0.0) / 2)
    assert found.sd == pytest.approx(np.std([0.5, 0.25], ddof=1))
    assert found.se_item == pytest.approx(seed_mean([(small, range(2))]).se_item / 2)


@pytest.mark.parametrize("values", [np.ones((3, 5)), np.eye(4), np.zeros((2, 1))])
def test_seeds_that_came_out_alike_leave_no_interval_over_seeds(values):
    found = seed_mean([(values, range(values.shape[1]))])
    assert all(map(math.isnan, (found.low, found.high, found.p)))
    assert found.detectable == math.inf


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([], "shapes do not fit"),
        ([(np.zeros((2, 3)), range(4))], "shapes do not fit"),
        ([(np.zeros((2, 0)), [])], "shapes do not fit"),
        ([(np.zeros((2, 3)), range(3)), (np.zeros((3, 3)), range(3))], "shapes do not fit"),
        ([(np.zeros((1, 3)), range(3))], "got 1 seeds"),
    ],
)
def test_what_cannot_be_averaged_is_refused(parts, told):
    with pytest.raises(ValueError, match=told):
        seed_mean(parts)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(2, 12), st.integers(1, 4), st.integers(0, 10**6))
@example(5, 8, 4, 6907)  # two patients whose means are equal but for rounding
def test_order_does_not_matter_sign_mirrors_and_errors_add_up(seeds, n, per_patient, draw):
    rng = np.random.default_rng(draw)
    values, of = rng.integers(-1, 2, (seeds, n)).astype(float), np.arange(n) // per_patient
    found = seed_mean([(values, of)])
    order, rows = rng.permutation(n), rng.permutation(seeds)
    mirrored = seed_mean([(-values[rows][:, order], of[order])])
    for low, high, value in ((found.low, found.high, found.mean), (found.crossed_low, found.crossed_high, found.mean)):
        assert math.isnan(low) or -1 <= low <= value <= high <= 1
    names = ("sd", "p", "detectable", "se_seed", "se_patient", "se_item", "crossed_df")
    assert [getattr(mirrored, name) for name in names] == pytest.approx(
        [getattr(found, name) for name in names],
        nan_ok=True,
        abs=1e-6,  # a root of what is 0 but for rounding
    )
    assert (-mirrored.high, -mirrored.mean) == pytest.approx((found.low, found.mean), nan_ok=True, abs=1e-9)
    if of.max() > 0 and not math.isnan(found.crossed_low) and -1 < found.crossed_low and found.crossed_high < 1:
        error = math.sqrt(found.se_seed**2 + found.se_patient**2 + found.se_item**2)
        half = float(stats.t.ppf(0.975, found.crossed_df)) * error
        assert found.crossed_high - found.mean == pytest.approx(half)


def drawn(rng, seeds, of, gain, chosen=0.0):
    """(S, n) answers of two arms that start from one expert per seed, to the same questions; true gain on average.

    A question is answered right where the expert's luck, the arm's luck with this seed and chance come out so. `chosen`
    is how much the questions themselves differ in which arm they suit.
    """
    n = len(of)
    expert, suits = 0.08 * rng.normal(size=(seeds, 1)), chosen * rng.normal(size=int(of.max()) + 1)[of]
    own = 0.02 * rng.normal(size=(2, seeds, 1))
    rates = [0.5 + expert + own[0] - suits / 2, 0.5 + gain + expert + own[1] + suits / 2]
    return [(rng.random((seeds, n)) < rate).astype(float) for rate in rates]


def test_the_primary_interval_covers_the_truth_as_often_as_it_says_and_pairing_is_worth_it():
    rng, of, times = np.random.default_rng(0), np.arange(300) // 2, 1200
    inside, narrower = 0, 0
    for time in range(times):
        first, second = drawn(rng, 8, of, gain=0.05)
        found = seed_mean([(second - first, of)])
        inside += found.low <= 0.05 <= found.high
        unpaired = seed_difference([(first, second, of)]) if time < 100 else None
        narrower += unpaired is not None and found.high - found.low < unpaired.high - unpaired.low
    assert abs(inside / times - 0.95) < 3 * math.sqrt(0.95 * 0.05 / times)  # 3 standard errors: 1.9 points
    assert narrower > 90  # of 100: the luck of the expert is in both arms, and gone from their difference


def test_the_crossed_interval_covers_the_truth_for_other_questions_and_that_over_seeds_does_not():
    # Where patients differ in which arm they suit, seeds alone say nothing of other patients.
    rng, of, times = np.random.default_rng(1), np.arange(120) // 3, 600
    crossed = seeds = 0
    for _ in range(times):
        first, second = drawn(rng, 8, of, gain=0.05, chosen=0.3)
        found = seed_mean([(second - first, of)])
        crossed += found.crossed_low <= 0.05 <= found.crossed_high
        seeds += found.low <= 0.05 <= found.high
    assert crossed / times > 0.95 - 3 * math.sqrt(0.95 * 0.05 / times)
    assert seeds / times < 0.9


def test_the_smallest_visible_difference_is_found_by_four_tests_of_five():
    # Arms whose difference varies by sd 0.04 between seeds, questions so many that they add next to nothing.
    rng, seeds, times = np.random.default_rng(2), 8, 4000
    visible = smallest_by_error(0.04 / math.sqrt(seeds), seeds - 1)
    assert 100 * visible == pytest.approx((2.3646 + 0.8960) * 4 / math.sqrt(8), abs=0.01)  # t_7; 4.6 points
    power = (stats.ttest_1samp(rng.normal(visible, 0.04, (times, seeds)), 0, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.025)
