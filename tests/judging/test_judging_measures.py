# Reference: arithmetic by hand, statsmodels, and Krippendorff's own examples.
# Run: pytest tests/judging/test_judging_measures.py
import math
from dataclasses import fields, replace

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from evaluation.clustered import clustered_wilson
from judging.agreement import cohen_kappa, krippendorff_alpha
from judging.measures import Measure, beside, macro, measures
from judging.sheet import Rows


def rows(truth, given, swapped=None, strict=None, difference=None, cluster=None):
    n = len(truth)
    difference = np.array(difference if difference is not None else [0] * n)
    longer = np.where(difference > 0, 0, np.where(difference < 0, 1, -1))
    as_array = lambda values: None if values is None else np.array(values)  # noqa: E731
    return Rows(
        *map(as_array, (truth, given, given if strict is None else strict, swapped)),
        longer,
        difference,
        np.array(cluster if cluster is not None else range(n)),
    )


def test_measures_by_hand():
    #        truth  given  swapped  longer
    table = [(0, 0, 0, 5), (0, 1, 0, 5), (1, -1, 1, -5), (1, 1, 1, 0), (1, 0, -1, -5), (0, 0, 1, 5)]
    truth, given, swapped, difference = zip(*table, strict=True)
    found = measures(rows(truth, given, swapped, [0, -1, -1, 1, -1, 0], difference))
    share = {name: (round(one.value * one.n) if one.n else 0, one.n) for name, one in found.items() if name != "kappa"}
    assert share == {
        "accuracy": (3, 6),  # rows 1, 4, 6; the unread row 3 is wrong
        "strict_accuracy": (3, 6),
        "answered": (5, 6),
        "strictly_answered": (3, 6),
        "accuracy_answered": (3, 5),
        "longer": (2, 4),  # rows 1 and 6 of 1, 2, 5, 6: row 3 is unread, row 4 even
        "longer_physicians": (4, 4),
        "accuracy_longer": (2, 5),  # physicians chose the longer in 1, 2, 3, 5, 6
        "accuracy_shorter": (0, 0),
        "accuracy_swapped": (4, 6),  # rows 1 to 4
        "accuracy_mean": (7, 12),
        "consistent": (2, 4),  # rows 1 and 4 of 1, 2, 4, 6
        "both_right": (2, 6),
        "first": (4, 8),  # given order: rows 1 and 6; swapped, where B is shown first: rows 4 and 6
    }
    assert math.isnan(found["accuracy_shorter"].value)
    assert beside(rows(truth, given, difference=difference)) == {"majority": 0.5, "longer_answer": 5 / 6}


def test_a_judge_that_goes_by_place_alone_is_found_out():
    truth = np.tile([0, 1], 50)
    found = measures(rows(truth, np.zeros(100, int), np.ones(100, int)))
    assert (found["first"].value, found["consistent"].value, found["accuracy_mean"].value) == (1, 0, 0.5)
    assert found["first"].low > 0.9


def test_exchanging_the_two_answers_changes_no_measure():
    draw = np.random.default_rng(0)
    truth, given, swapped, strict = (draw.integers(low, 2, 200) for low in (0, -1, -1, -1))
    held = rows(truth, given, swapped, strict, draw.integers(-3, 4, 200), draw.integers(0, 60, 200))
    turn = lambda side: np.where(side < 0, side, 1 - side)  # noqa: E731
    # the orders change places too: what was given is now the swapped one
    other = replace(
        held,
        **{name: turn(getattr(held, name)) for name in ("truth", "strict", "longer")},
        given=turn(held.swapped),
        swapped=turn(held.given),
        difference=-held.difference,
    )
    a, b = measures(held), measures(other)
    for name in ("accuracy_mean", "consistent", "both_right", "first"):
        for field in fields(Measure):
            assert getattr(a[name], field.name) == pytest.approx(getattr(b[name], field.name)), name
    assert a["accuracy_swapped"].value == b["accuracy"].value
    assert a["strict_accuracy"] == b["strict_accuracy"]


def test_intervals_know_that_a_case_s_verdicts_go_together():
    truth = np.repeat(np.arange(40) % 2, 6)  # six copies of one verdict say no more than one
    clusters = np.repeat(np.arange(40), 6)
    six = measures(rows(truth, np.zeros(240, int), cluster=clusters))["accuracy"]
    one = measures(rows(truth[::6], np.zeros(40, int)))["accuracy"]
    assert (six.low, six.high) == pytest.approx((one.low, one.high), abs=0.003)
    assert (six.low, six.high) == clustered_wilson(truth == 0, clusters)
    kappas = [measures(rows(t, g, cluster=c))["kappa"] for t, g, c in repeated()]
    assert [kappas[0].low, kappas[0].high] == pytest.approx([kappas[1].low, kappas[1].high])


def repeated():
    draw = np.random.default_rng(1)
    truth = draw.integers(0, 2, 80)
    given = np.where(draw.random(80) < 0.7, truth, 1 - truth)
    yield truth, given, np.arange(80)
    yield np.repeat(truth, 6), np.repeat(given, 6), np.repeat(np.arange(80), 6)


def test_the_mean_of_organs_counts_each_once():
    found = macro([Measure(1.0, 0.8, 1.0, 10), Measure(0.5, 0.4, 0.6, 100)])
    assert (found.value, found.n) == (0.75, 110)
    assert found.low == pytest.approx(0.75 - math.hypot(0.2, 0.1) / 2)
    assert math.isnan(macro([Measure(1.0, 0.8, 1.0, 10), Measure()]).value)


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_statsmodels(seed):
    draw = np.random.default_rng(seed)
    a = draw.integers(0, 2, 400)
    b = np.where(draw.random(400) < 0.5 + 0.1 * seed, a, draw.integers(0, 2, 400))
    b[::9] = -1  # not rated
    kept = b >= 0
    theirs = cohens_kappa(np.bincount(2 * a[kept] + b[kept], minlength=4).reshape(2, 2))
    value, low, high = cohen_kappa(a, b)
    assert value == pytest.approx(theirs.kappa, abs=1e-12)
    # of independent units the jackknife is near the asymptotic interval
    assert (low, high) == pytest.approx((theirs.kappa_low, theirs.kappa_upp), abs=0.01)


def test_kappa_where_there_is_none():
    assert math.isnan(cohen_kappa([0, 0], [0, 0])[0])
    assert math.isnan(cohen_kappa([0, 1], [-1, -1])[0])
    assert cohen_kappa([0, 1, 0, 1], [0, 0, 0, 0])[0] == 0  # a constant judge agrees as chance does
    value, low, high = cohen_kappa([0, 1], [0, 1], [7, 7])
    assert value == 1
    assert math.isnan(low)
    assert math.isnan(high)


def test_full_agreement_of_a_few_cases_claims_no_certainty():
    value, low, high = cohen_kappa([0, 1, 0, 1], [0, 1, 0, 1], list("abcd"))
    assert value == 1
    assert math.isnan(low)
    assert math.isnan(high)


def test_krippendorff_s_own_examples():
    # Two observers, ten articles, two values: alpha = 0.095. Four observers, twelve units, gaps: 0.743.
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert round(krippendorff_alpha(list(zip(first, second, strict=True))), 3) == 0.095
    lines = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    units = [[None if c == "." else c for c in unit] for unit in zip(*lines, strict=True)]
    assert round(krippendorff_alpha(units), 3) == 0.743
    assert krippendorff_alpha([("x", "x"), ("y", "y")]) == 1
    assert math.isnan(krippendorff_alpha([("x", "x")]))
    assert math.isnan(krippendorff_alpha([("x", None)]))
