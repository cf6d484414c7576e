# Reference: statsmodels 0.15 (cluster-robust covariance), scipy 1.17 (binomial test), enumeration, arithmetic by hand;
# run with `pytest tests/evaluation/test_clustered.py`.
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.clustered import clustered_se, clustered_wilson
from evaluation.paired import macro_difference, paired_difference, sign_flip_p
from evaluation.statistics import mcnemar_exact, mean_sd, wilson


def test_standard_error_by_hand():
    # 1 1 | 0 0: mean 1/2, cluster sums of deviations +1 and -1: sqrt(2/1 · 2) / 4 = 1/2; independent: sqrt(1/3) / 2
    assert clustered_se([1, 1, 0, 0], [7, 7, 8, 8]) == pytest.approx(0.5, abs=1e-12)
    assert clustered_se([1, 1, 0, 0]) == pytest.approx(math.sqrt(1 / 3) / 2, abs=1e-12)
    assert clustered_se([1, 0, 1, 0], ["a", "a", "b", "b"]) == 0.0
    assert math.isnan(clustered_se([1, 0], [3, 3]))


@pytest.mark.parametrize("seed", range(4))
def test_standard_error_equals_statsmodels_and_scipy(seed):
    api = pytest.importorskip("statsmodels.api")
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 40, 300)
    values = (rng.random(300) < 0.3 + 0.4 * rng.random(40)[clusters]).astype(float)
    fitted = api.OLS(values, np.ones(300)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    assert clustered_se(values, clusters.tolist()) == pytest.approx(float(fitted.bse[0]), abs=1e-9)
    assert clustered_se(values) == pytest.approx(float(stats.sem(values)), abs=1e-9)
    assert mean_sd(values)[1] / math.sqrt(300) == pytest.approx(float(stats.sem(values)), abs=1e-9)


def test_wilson_at_the_effective_number():
    rng = np.random.default_rng(1)
    right = rng.random(200) < 0.7
    assert clustered_wilson(right, range(200)) == pytest.approx(wilson(int(right.sum()), 200), abs=1e-12)
    # four copies of each answer hold no more than one: nearly the interval of 200, not that of 800
    copied = clustered_wilson(np.repeat(right, 4), np.repeat(np.arange(200), 4))
    assert copied == pytest.approx(wilson(int(right.sum()), 200), abs=1e-3)
    # clusters that cancel out do not narrow it
    assert clustered_wilson([1, 0] * 50, np.repeat(np.arange(50), 2)) == pytest.approx(wilson(50, 100), abs=1e-12)
    # nothing varies: as many as there are clusters
    assert clustered_wilson([1] * 60, np.repeat(np.arange(20), 3)) == pytest.approx(wilson(20, 20), abs=1e-12)
    assert clustered_wilson([1, 0], ["one", "one"]) == pytest.approx(wilson(0.5, 1), abs=1e-12)


@pytest.mark.parametrize(("n_clusters", "size", "low", "high"), [(5, 40, 0.85, 0.92), (30, 10, 0.93, 0.97)])
def test_few_patients_make_intervals_too_short_as_stated(n_clusters, size, low, high):
    # accuracies of patients drawn from a symmetric beta with correlation 0.3 within a patient; the mean is 1/2
    rng = np.random.default_rng(0)
    shape = 0.5 * (1 - 0.3) / 0.3
    clusters = np.repeat(np.arange(n_clusters), size)
    covered = 0
    for _ in range(1500):
        right = rng.random(len(clusters)) < np.repeat(rng.beta(shape, shape, n_clusters), size)
        bounds = clustered_wilson(right, clusters)
        covered += bounds[0] <= 0.5 <= bounds[1]
    assert low < covered / 1500 < high


def enumerated(sums):
    observed = abs(sum(sums))
    flips = [abs(sum(s * e for s, e in zip(sums, signs, strict=True))) for signs in product((1, -1), repeat=len(sums))]
    return sum(flip >= observed for flip in flips) / len(flips)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 6), st.sampled_from([-1, 0, 1])), max_size=25))
def test_sign_flip_equals_enumeration(rows):
    clusters, differences = [row[0] for row in rows], [row[1] for row in rows]
    sums = [sum(d for c, d in rows if c == cluster) for cluster in sorted(set(clusters))]
    assert sign_flip_p(differences, clusters) == pytest.approx(enumerated(sums), abs=1e-12)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (3, 9), (10, 40), (500, 620), (4000, 4100)])
def test_sign_flip_without_clusters_is_mcnemar(b, c):
    stats = pytest.importorskip("scipy.stats")
    found = sign_flip_p([-1] * b + [1] * c + [0] * 17)
    assert found == pytest.approx(mcnemar_exact(b, c), abs=1e-9)
    if b + c:
        assert found == pytest.approx(stats.binomtest(b, b + c).pvalue, abs=1e-9)


@pytest.mark.parametrize(("b", "c"), [(300, 100), (0, 100), (0, 900), (700, 1)])
def test_tiny_p_values_are_right_too(b, c):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(b, b + c).pvalue  # 2.6e-24 for 300 and 100: far below what a transform can tell
    assert sign_flip_p([-1] * b + [1] * c) == pytest.approx(expected, rel=1e-9, abs=0)
    # the same evidence, two questions a patient: the answers about one agree, so that nothing changes but the doubt
    twice = sign_flip_p([-1] * 2 * b + [1] * 2 * c, np.repeat(np.arange(b + c), 2))
    assert twice == pytest.approx(max(expected, 1e-12), rel=0.5)


def test_a_p_value_is_never_below_what_the_number_of_patients_allows():
    # 10 patients with sums of 2, all on one side: 2 of 2^10 patterns
    assert sign_flip_p([1] * 20, np.repeat(np.arange(10), 2)) == pytest.approx(2**-9, rel=1e-9)


def test_sign_flip_identities():
    rng = np.random.default_rng(2)
    differences, clusters = rng.integers(-1, 2, 400), rng.integers(0, 90, 400)
    p = sign_flip_p(differences, clusters)
    assert sign_flip_p(-differences, clusters) == pytest.approx(p, abs=1e-12)
    order = rng.permutation(400)
    assert sign_flip_p(differences[order], clusters[order]) == pytest.approx(p, abs=1e-12)
    # copies within a patient say nothing new
    twice = sign_flip_p(np.repeat(differences, 2), np.repeat(np.arange(400), 2))
    assert twice == pytest.approx(sign_flip_p(differences), abs=1e-12)
    assert sign_flip_p([1] * 2000) > 0


@pytest.mark.parametrize("arguments", [([1, 0], [1]), ([0.5],)])
def test_sign_flip_refuses(arguments):
    with pytest.raises(ValueError, match="sign_flip_p"):
        sign_flip_p(*arguments)


def test_a_paired_difference_carries_both_tests():
    found = paired_difference([1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1])
    # b = 1, c = 4: 2 · (1 + 5) / 32; by patient: sums -1 and 4: |±1 ± 4| ≥ 3 always
    assert (found.p_mcnemar, found.p) == pytest.approx((12 / 32, 1.0))
    assert found.se == pytest.approx(clustered_se([-1, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]))


def test_macro_by_hand():
    # differences .1 and .3, errors .03 and .04: mean .2, error .05 / 2, z = 8
    stats = pytest.importorskip("scipy.stats")
    mean, error, p = macro_difference([0.1, 0.3], [0.03, 0.04])
    assert (mean, error) == (pytest.approx(0.2), pytest.approx(0.025))
    assert p == pytest.approx(2 * stats.norm.sf(8.0), rel=1e-9)
    assert macro_difference([0.01], [0.02])[2] == pytest.approx(2 * stats.norm.sf(0.5), abs=1e-9)
    assert macro_difference([0.0, 0.0], [0.0, 0.0]) == (0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="macro_difference"):
        macro_difference([], [])


@pytest.mark.parametrize("arguments", [([],), ([1, 0], [1])])
def test_standard_error_refuses(arguments):
    with pytest.raises(ValueError, match="clustered_se"):
        clustered_se(*arguments)


def test_a_hundred_thousand_items():
    # with work that grows with the square these would not end
    rng = np.random.default_rng(4)
    a, b, clusters = rng.random(100_000) < 0.5, rng.random(100_000) < 0.5, np.arange(100_000) // 3
    found = paired_difference(a, b, clusters.tolist())
    low, high = clustered_wilson(a, clusters)
    assert found.n_clusters == 33_334
    assert found.low < found.difference < found.high
    assert low < a.mean() < high
