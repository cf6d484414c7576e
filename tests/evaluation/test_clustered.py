# Reference: statsmodels 0.15 (cluster-robust covariance), scipy 1.17 (binomial test), enumeration, arithmetic by hand;
# run with `pytest tests/evaluation/test_clustered.py`.
import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.clustered import clustered_variance, clustered_wilson, degrees_of_freedom, effective
from evaluation.paired import paired_difference
from evaluation.sign_flip import macro_sign_flip_p, sign_flip_p
from evaluation.statistics import mcnemar_exact, mean_sd


def test_variance_by_hand():
    # 1 1 | 0 0: mean 1/2, cluster sums of deviations +1 and -1, each over 1 - 1/2: (2 + 2) / 16; independent: 1/3 / 4
    assert clustered_variance([1, 1, 0, 0], [7, 7, 8, 8]) == pytest.approx(1 / 4, abs=1e-12)
    assert clustered_variance([1, 1, 0, 0]) == pytest.approx(1 / 12, abs=1e-12)
    assert clustered_variance([1, 0, 1, 0], ["a", "a", "b", "b"]) == 0.0
    assert math.isnan(clustered_variance([1, 0], [3, 3]))


@pytest.mark.parametrize("seed", range(4))
def test_equal_clusters_equal_statsmodels_and_scipy(seed):
    api = pytest.importorskip("statsmodels.api")
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(seed)
    clusters = rng.permutation(np.repeat(np.arange(50), 6))
    values = (rng.random(300) < 0.3 + 0.4 * rng.random(50)[clusters]).astype(float)
    fitted = api.OLS(values, np.ones(300)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    assert math.sqrt(clustered_variance(values, clusters.tolist())) == pytest.approx(float(fitted.bse[0]), abs=1e-9)
    assert math.sqrt(clustered_variance(values)) == pytest.approx(float(stats.sem(values)), abs=1e-9)
    assert mean_sd(values)[1] / math.sqrt(300) == pytest.approx(float(stats.sem(values)), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_unequal_clusters_equal_the_matrices_of_bell_and_mccaffrey(seed):
    # CR2 of a regression on a column of ones, by its definition: residuals times (I - H_gg)^(-1/2)
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, 12)
    of, n = np.repeat(np.arange(12), sizes), int(sizes.sum())
    values = rng.random(n)
    hat = np.ones((n, n)) / n
    terms, loads = [], []
    for g in range(12):
        inside = of == g
        left = np.eye(int(inside.sum())) - hat[np.ix_(inside, inside)]
        roots, vectors = np.linalg.eigh(left)
        adjusted = vectors @ np.diag(roots**-0.5) @ vectors.T
        terms.append(float(np.ones(inside.sum()) @ adjusted @ (values - values.mean())[inside]) / n)
        loads.append((np.eye(n) - hat)[:, inside] @ adjusted @ np.ones(inside.sum()) / n)
    assert clustered_variance(values, of) == pytest.approx(sum(t * t for t in terms), rel=1e-9)
    gram = np.stack(loads) @ np.stack(loads).T
    assert degrees_of_freedom(sizes) == pytest.approx(np.trace(gram) ** 2 / (gram**2).sum(), rel=1e-9)


def test_degrees_of_freedom_by_hand():
    assert degrees_of_freedom([3] * 10) == pytest.approx(9)
    assert degrees_of_freedom([1] * 7) == pytest.approx(6)
    assert degrees_of_freedom([5]) == 1.0
    # half of the questions about one patient: the others cannot make up for it
    assert 1 < degrees_of_freedom([50] + [1] * 50) < 4


def test_what_items_are_worth():
    assert effective([1, 0, 1, 0]).n == 4
    assert effective([1, 1, 1, 1], [0, 0, 1, 1]).n == 2  # nothing varies: as many as there are patients
    assert effective([1] * 4, [0, 0, 0, 1]).n == pytest.approx(16 / 10)
    assert effective([1, 0], [0, 0]).df == 1.0
    assert effective([1, 0, 1, 0], [0, 0, 1, 1]).n == 4  # patients that cancel out are worth no more than items


def test_wilson_at_the_effective_number():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    right = rng.random(200) < 0.7
    expected = stats.binomtest(int(right.sum()), 200).proportion_ci(method="wilson")
    wilson = (expected.low, expected.high)
    assert clustered_wilson(right, range(200)) == pytest.approx(wilson, abs=6e-4)
    # four copies of each answer hold no more than one: nearly the interval of 200, not that of 800
    copied = clustered_wilson(np.repeat(right, 4), np.repeat(np.arange(200), 4))
    assert copied == pytest.approx(wilson, abs=2e-3)
    # nothing varies: as many as there are clusters, by Student's quantile of 19 degrees of freedom
    square = float(stats.t.ppf(0.975, 19)) ** 2
    found = clustered_wilson([1] * 60, np.repeat(np.arange(20), 3))
    assert found == pytest.approx((20 / (20 + square), 1.0), abs=1e-9)


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


def enumerated_macro(parts):
    shares = [(d, len(rows)) for rows, _ in parts for d in rows]
    observed = abs(sum(Fraction(d, n) for d, n in shares))
    sums = []
    for rows, clusters in parts:
        for cluster in sorted(set(clusters)):
            sums.append(Fraction(sum(d for d, c in zip(rows, clusters, strict=True) if c == cluster), len(rows)))
    flips = [abs(sum(s * e for s, e in zip(sums, signs, strict=True))) for signs in product((1, -1), repeat=len(sums))]
    return sum(flip >= observed for flip in flips) / len(flips)


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.sampled_from([-1, 0, 1])), min_size=1, max_size=9),
        min_size=1,
        max_size=3,
    )
)
def test_the_macro_test_equals_enumeration(parts):
    split = [([d for _, d in rows], [c for c, _ in rows]) for rows in parts]
    assert macro_sign_flip_p(split) == pytest.approx(enumerated_macro(split), abs=1e-12)


def test_the_macro_test_of_large_unequal_specialties_is_that_of_the_means():
    # 100,003 and 69,997 have no common multiple to speak of; of so many the test is normal
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    parts = [(rng.choice([-1, 0, 1], n, p=[0.1, 0.799, 0.101]), np.arange(n)) for n in (100_003, 69_997)]
    error = math.sqrt(sum((d.astype(float) ** 2).mean() / len(d) for d, _ in parts)) / 2
    z = abs(np.mean([d.mean() for d, _ in parts])) / error
    assert macro_sign_flip_p(parts) == pytest.approx(2 * stats.norm.sf(z), rel=0.1)
    with pytest.raises(ValueError, match="macro_sign_flip_p"):
        macro_sign_flip_p([])


@pytest.mark.parametrize("arguments", [([],), ([1, 0], [1])])
def test_variance_refuses(arguments):
    with pytest.raises(ValueError, match="clustered"):
        clustered_variance(*arguments)


def test_a_hundred_thousand_items():
    # with work that grows with the square these would not end
    rng = np.random.default_rng(4)
    a, b, clusters = rng.random(100_000) < 0.5, rng.random(100_000) < 0.5, np.arange(100_000) // 3
    found = paired_difference(a, b, clusters.tolist())
    low, high = clustered_wilson(a, clusters)
    assert found.n_clusters == 33_334
    assert found.low < found.difference < found.high
    assert low < a.mean() < high
