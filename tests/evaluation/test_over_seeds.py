# Reference: an analysis of variance by hand, a one-way limit, and the truth that answers are drawn from.
# Run: pytest tests/evaluation/test_over_seeds.py, with -m slow for more seeds, questions and effects.
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.over_seeds import seed_difference


def test_where_questions_decide_nothing_it_is_the_t_test_of_welch():
    # every seed is right on a fixed share of every patient's questions: only the seeds vary, apart from the two
    # differences that are added, which vanish among so many
    first, second = [0.50, 0.56, 0.53], [0.70, 0.60, 0.62]
    block = np.arange(100)
    sides = [np.stack([np.tile(block < round(100 * a), 400) for a in side]).astype(float) for side in (first, second)]
    found = seed_difference([(*sides, np.repeat(np.arange(400), 100))])
    expected = stats.ttest_ind(second, first, equal_var=False)
    assert found.difference == pytest.approx(expected.statistic * found.se_seed, rel=1e-6)
    assert found.df == pytest.approx(expected.df, rel=1e-6)
    assert found.p == pytest.approx(expected.pvalue, rel=0.05)
    assert (found.sd_a, found.sd_b) == pytest.approx((np.std(first, ddof=1), np.std(second, ddof=1)))
    assert found.se_seed > 5 * found.se_item


def test_where_seeds_decide_nothing_the_questions_do():
    rng = np.random.default_rng(0)
    first, second = (np.repeat((rng.random((1, 4000)) < rate).astype(float), 5, axis=0) for rate in (0.5, 0.6))
    found = seed_difference([(first, second, range(4000))])
    d = (second - first)[0]
    assert (found.se_seed, found.se_patient) == (0.0, 0.0)
    assert found.se_item == pytest.approx(d.std(ddof=1) / math.sqrt(4000), rel=1e-3)
    assert found.df == 8  # both methods always gave the same: of 5 + 5 seeds two means are known


def test_parts_by_hand():
    # 2 seeds x 2 patients of 1 question. First: all wrong. Second: seed 0 right on both, seed 1 right on the first.
    first, second = np.zeros((2, 2)), np.array([[1.0, 1.0], [1.0, 0.0]])
    found = seed_difference([(first, second, [0, 1])])
    # accuracies 1 and 1/2: s² / 2 = 1/16. Doubly centred: ±1/4, squares 4/16; / n² / (S (S - 1)) · G / (G - 1) = 1/16
    assert found.se_seed == 0.0
    assert found.difference == 0.75
    # differences 1 and 1/2, with +1 and -1 added: centre 1.5 / 4, ψ = (1.25 + 2) / 4, variance (ψ - c²) / 4
    assert found.se_item == pytest.approx(math.sqrt((3.25 / 4 - (1.5 / 4) ** 2) / 4))
    assert found.df == 1.0


def drawn(rng, seeds, of, sd, method=0.4, luck=0.5):
    """(seeds, n) answers of two methods that are equally good on the whole, whose seeds vary by `sd`."""
    n, patients = len(of), int(of.max()) + 1
    common = 0.6 * rng.normal(size=n) + 0.5 * rng.normal(size=patients)[of]
    for count, spread in zip(seeds, sd, strict=True):
        taste = method * (0.8 * rng.normal(size=n) + 0.6 * rng.normal(size=patients)[of])
        chance = luck * (0.9 * rng.normal(size=(count, n)) + 0.4 * rng.normal(size=(count, patients))[:, of])
        yield (common + taste + spread * rng.normal(size=(count, 1)) + chance < 0.2).astype(float)


def rejected(times, seeds, n, per_patient, sd, **effects):
    rng = np.random.default_rng(0)
    of = np.arange(n) // per_patient
    found = [seed_difference([(*drawn(rng, seeds, of, sd, **effects), of)]) for _ in range(times)]
    assert all((one.p < 0.05) == (one.low > 0 or one.high < 0) for one in found if abs(one.difference) < 0.95)
    return sum(one.p < 0.05 for one in found) / times


def check(times, *arguments, **effects):
    assert rejected(times, *arguments, **effects) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / times)


@pytest.mark.parametrize("sd", [(0.0, 0.0), (0.3, 0.3), (0.0, 0.3)])
def test_equal_methods_are_told_apart_in_at_most_one_table_of_twenty(sd):
    check(400, (3, 3), 60, 2, sd)


def test_forgetting_the_seeds_would_find_differences_that_are_none():
    # the same draws, seeds taken for fixed: what averaging over seeds and testing over questions does
    rng = np.random.default_rng(0)
    of, wrong = np.arange(200), 0
    for _ in range(200):
        first, second = drawn(rng, (3, 3), of, (0.3, 0.3))
        wrong += stats.ttest_1samp(second.mean(0) - first.mean(0), 0).pvalue < 0.05
    assert wrong > 60
    check(200, (3, 3), 200, 1, (0.3, 0.3))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(2, 2), (3, 3), (3, 6), (5, 5)])
@pytest.mark.parametrize(("n", "per_patient"), [(20, 1), (20, 4), (60, 1), (60, 4), (200, 1), (200, 4)])
def test_the_level_over_seeds_questions_and_effects(seeds, n, per_patient):
    for sd in ((0, 0), (0.1, 0.1), (0.3, 0.3), (0, 0.3), (0.3, 0)):
        for method, luck in ((0.4, 0.5), (0.0, 0.1), (0.0, 0.5), (0.4, 0.02)):
            check(300, seeds, n, per_patient, sd, method=method, luck=luck)


def test_a_large_difference_is_seen_with_three_seeds():
    rng = np.random.default_rng(1)
    seen = 0
    for _ in range(100):
        of = np.arange(200)
        first, second = drawn(rng, (3, 3), of, (0.05, 0.05))
        second = np.maximum(second, rng.random(200) < 0.4)  # about 18 points better
        seen += seed_difference([(first, second, of)]).p < 0.05
    assert seen > 80


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_the_answers_the_numbers_are_in_range(data):
    seeds = data.draw(st.tuples(st.integers(2, 4), st.integers(2, 4)))
    parts = []
    for n in data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)):
        rows = [st.lists(st.integers(0, 1), min_size=n, max_size=n) for _ in range(sum(seeds))]
        held = np.array(data.draw(st.tuples(*rows)), dtype=float)
        parts.append(
            (held[: seeds[0]], held[seeds[0] :], data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
        )
    found, back = seed_difference(parts), seed_difference([(b, a, of) for a, b, of in parts])
    assert -1 <= found.low <= found.difference + 1e-12
    assert found.difference - 1e-12 <= found.high <= 1
    assert found.high - found.low > 0.01
    assert 0 < found.p <= 1
    assert found.df >= 1
    assert min(found.se_seed, found.se_patient, found.se_item) >= 0
    assert (back.difference, back.p) == (pytest.approx(-found.difference), pytest.approx(found.p))
    assert (back.low, back.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "shapes do not fit"),
        ([(np.zeros((2, 3)), np.zeros((2, 4)), [0, 1, 2])], "shapes do not fit"),
        ([(np.zeros((1, 3)), np.zeros((2, 3)), [0, 1, 2])], "got 1 and 2 seeds"),
    ],
)
def test_what_is_no_table_of_seeds_is_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        seed_difference(parts)
