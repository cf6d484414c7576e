# Reference: arithmetic by hand, scipy 1.17 and statsmodels 0.15; run with `pytest tests/evaluation/test_statistics.py`.
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.clustered import clustered_wilson
from evaluation.paired import paired_difference
from evaluation.sign_flip import macro_sign_flip_p
from evaluation.statistics import holm, mcnemar_exact, mean_interval, mean_sd, score_interval


def test_wilson_by_hand():
    # 0 of 1 at z = 1.959964: low 0, high = z² / (1 + z²) = 3.841459 / 4.841459 = 0.793451
    z = NormalDist().inv_cdf(0.975)
    assert score_interval(0.0, 1, z) == pytest.approx((0.0, 0.7934506856227626), abs=1e-12)
    low, high = score_interval(1.0, 1, z)
    assert (low, high) == pytest.approx((1 - 0.7934506856227626, 1.0), abs=1e-12)
    assert high == 1.0


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (3, 7), (7, 7), (84, 100), (12_345, 99_999)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_wilson_equals_scipy_and_statsmodels(successes, n, confidence):
    stats = pytest.importorskip("scipy.stats")
    found = score_interval(successes / n, n, NormalDist().inv_cdf(0.5 + confidence / 2))
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    expected = proportion.proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_an_interval_refuses(confidence):
    with pytest.raises(ValueError, match="confidence"):
        clustered_wilson([1, 0, 1], [0, 1, 2], confidence)


def test_mcnemar_by_hand():
    # b = 1, c = 5: 2 · (C(6,0) + C(6,1)) / 64 = 14 / 64; b = c: 1; none: 1
    assert mcnemar_exact(1, 5) == 14 / 64
    assert mcnemar_exact(4, 4) == 1.0
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 1) == mcnemar_exact(1, 5)


@pytest.mark.parametrize(("b", "c"), [(0, 1), (3, 9), (10, 40), (500, 620), (4000, 4100)])
def test_mcnemar_equals_statsmodels(b, c):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    expected = tables.mcnemar([[5, b], [c, 7]], exact=True).pvalue
    assert mcnemar_exact(b, c) == pytest.approx(expected, abs=1e-9)


def test_mcnemar_does_not_underflow():
    assert 0 <= mcnemar_exact(20_000, 30_000) < 1e-300
    assert mcnemar_exact(20_000, 20_100) == pytest.approx(0.62, abs=0.01)  # z = 99 / sqrt(40 100) = 0.494


def test_paired_difference_by_hand():
    # second better on questions 1, 2 and 3, worse on 0: difference (3 - 1) / 4
    found = paired_difference([1, 0, 0, 0], [0, 1, 1, 1])
    assert (found.difference, found.only_a, found.only_b, found.n, found.n_clusters) == (0.5, 1, 3, 4, 4)
    assert found.p == found.p_mcnemar == mcnemar_exact(1, 3)
    # with one of +1 and one of -1 added: (4 - 2) / 6, variance (1 - 1/9) / 6; t with 3 degrees of freedom is 3.182446
    half = 3.182446 * math.sqrt((1 - 1 / 9) / 6)
    assert (found.low, found.high) == pytest.approx((1 / 3 - half, 1.0), abs=1e-6)


def test_bonett_and_price_by_their_formula():
    # adjusted Wald of Bonett & Price 2012: ((c + 1) - (b + 1)) / (n + 2) ± q sqrt((p12 + p21 - (p12 - p21)²) / (n + 2))
    stats = pytest.importorskip("scipy.stats")
    a = np.repeat([1, 0, 1, 0], [12, 30, 40, 18])
    b = np.repeat([0, 1, 1, 0], [12, 30, 40, 18])
    p12, p21 = 13 / 102, 31 / 102
    half = stats.t.ppf(0.975, 99) * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / 102)
    found = paired_difference(a, b)
    assert (found.low, found.high) == pytest.approx((p21 - p12 - half, p21 - p12 + half), abs=1e-12)


def test_four_questions_are_no_proof():
    found = paired_difference([0] * 4, [1] * 4)
    assert (found.difference, found.p, found.high) == (1.0, 0.125, 1.0)
    assert found.low < 0
    assert found.detectable == math.inf  # 2 / 2^4 is above 5 %: no result of four questions could show anything


def test_paired_difference_identities():
    rng = np.random.default_rng(0)
    a, b = rng.random(300) < 0.6, rng.random(300) < 0.7
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.difference == -back.difference
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    same = paired_difference(a, a)
    assert (same.difference, same.p) == (0.0, 1.0)
    assert same.low == pytest.approx(-same.high)
    assert same.high > 0
    assert paired_difference(a, b, clusters=range(300)) == there


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_whatever_the_answers_an_interval_is_an_interval(rows):
    of, a, b = zip(*rows, strict=True)
    for clusters in (None, of):
        found = paired_difference(a, b, clusters)
        assert -1 <= found.low <= found.difference <= found.high <= 1
        assert found.high - found.low > 0.01
        assert 0 < found.p <= 1
        assert 0 < found.p_mcnemar <= 1
        assert found.detectable > 0
        assert 1 <= found.df
        assert 0 < found.n_effective <= found.n
        low, high = clustered_wilson(a, clusters if clusters is not None else range(len(a)))
        assert 0 <= low <= sum(a) / len(a) <= high <= 1
        assert high - low > 0.01
    parts = [(np.subtract(b, a, dtype=int), of), (np.subtract(b, a, dtype=int)[:3], of[:3])]
    assert 0 < macro_sign_flip_p(parts) <= 1
    ends = [paired_difference(a, b, of), paired_difference(a[:3], b[:3], of[:3])]
    mean, low, high = mean_interval([one.difference for one in ends], [(one.low, one.high) for one in ends])
    assert -1 <= low < mean + 1e-12 <= high + 1e-12
    assert high <= 1


def test_the_interval_agrees_with_the_normal_approximation():
    rng = np.random.default_rng(1)
    a, b = rng.random(4000) < 0.6, rng.random(4000) < 0.63
    found = paired_difference(a, b)
    d = b.astype(float) - a
    half = 1.959964 * d.std(ddof=1) / math.sqrt(len(d))
    assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half), abs=0.0005)


def test_clusters_that_repeat_one_answer_widen_the_interval():
    # every patient's 4 questions have the same outcome: the data hold a quarter of the information, width x 2
    rng = np.random.default_rng(2)
    a, b = rng.random(400) < 0.5, rng.random(400) < 0.6
    single = paired_difference(a, b)
    copies = paired_difference(np.repeat(a, 4), np.repeat(b, 4), clusters=np.repeat(np.arange(400), 4).tolist())
    blind = paired_difference(np.repeat(a, 4), np.repeat(b, 4))
    assert copies.n_clusters == 400
    assert copies.n_effective == pytest.approx(400, rel=0.01)
    assert copies.detectable == pytest.approx(single.detectable, rel=0.01)
    assert copies.high - copies.low == pytest.approx(single.high - single.low, rel=0.01)
    assert (copies.high - copies.low) / (blind.high - blind.low) == pytest.approx(2, rel=0.02)


def test_the_interval_agrees_with_a_cluster_bootstrap():
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 5, 200)
    of = np.repeat(np.arange(200), sizes)
    a, b = rng.random(len(of)) < 0.5, rng.random(len(of)) < 0.65
    found = paired_difference(a, b, of.tolist())
    sums = np.bincount(of, weights=b.astype(float) - a)
    draws = rng.integers(0, 200, (20_000, 200))
    plain = np.quantile(sums[draws].sum(1) / sizes[draws].sum(1), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(tuple(plain), abs=0.01)


@pytest.mark.parametrize(
    ("a", "b", "options"),
    [
        ([1], [1, 0], {}),
        ([], [], {}),
        ([1, 2], [0, 1], {}),
        ([1], [0], {"clusters": [1, 2]}),
        ([1], [0], {"confidence": 1.0}),
    ],
)
def test_paired_difference_refuses(a, b, options):
    with pytest.raises(ValueError, match=r"paired_difference|confidence"):
        paired_difference(a, b, **options)


def test_the_mean_of_intervals_by_hand():
    # 0.2 [0.1, 0.4] and 0.6 [0.2, 0.8]: mean 0.4; below sqrt(.01 + .16) / 2, above sqrt(.04 + .04) / 2
    found = mean_interval([0.2, 0.6], [(0.1, 0.4), (0.2, 0.8)])
    assert found == pytest.approx((0.4, 0.4 - math.sqrt(0.17) / 2, 0.4 + math.sqrt(0.08) / 2), abs=1e-12)
    assert mean_interval([0.3], [(0.1, 0.4)]) == pytest.approx((0.3, 0.1, 0.4))
    with pytest.raises(ValueError, match="mean_interval"):
        mean_interval([], [])


def test_holm_by_hand():
    # sorted .01 .02 .04: 3 · .01 = .03, 2 · .02 = .04, 1 · .04 = .04
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_equals_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    values = np.random.default_rng(5).random(40) ** 3
    assert holm(values.tolist()) == pytest.approx(multitest.multipletests(values, method="holm")[1].tolist(), abs=1e-12)


@pytest.mark.parametrize("bad", [1.1, -0.1, float("nan")])
def test_holm_refuses(bad):
    with pytest.raises(ValueError, match="holm"):
        holm([0.5, bad])


def test_mean_sd_by_hand():
    # 1 2 3: mean 2, squares 1 + 0 + 1 over n - 1 = 2
    assert mean_sd([1, 2, 3]) == (2.0, 1.0)
    mean, sd = mean_sd([0.4])
    assert mean == 0.4
    assert math.isnan(sd)
    with pytest.raises(ValueError, match="no values"):
        mean_sd([])
