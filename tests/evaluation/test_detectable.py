# Reference: an example of O'Brien (2002) as G*Power's manual gives it, enumeration, arithmetic by hand.
# Run: pytest tests/evaluation/test_detectable.py
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.detectable import mcnemar_power, smallest_by_error, smallest_difference, smallest_told
from evaluation.statistics import mcnemar_exact


def test_the_power_of_a_published_example():
    # 50 pairs, 0.32 and 0.08 of them discordant, one-sided 5 %: power 0.8393, true level 0.032578
    assert mcnemar_power(50, 0.4, 0.24, alpha=0.10) == pytest.approx(0.8393, abs=1e-4)
    assert mcnemar_power(50, 0.4, 0.0, alpha=0.10) == pytest.approx(0.032578, abs=1e-6)


@pytest.mark.parametrize(("n", "psi", "delta"), [(6, 0.9, 0.9), (7, 0.6, 0.4), (9, 0.8, 0.7)])
def test_power_equals_enumeration(n, psi, delta):
    chances = {-1: (psi - delta) / 2, 0: 1 - psi, 1: (psi + delta) / 2}
    expected = sum(
        math.prod(chances[d] for d in row)
        for row in product((-1, 0, 1), repeat=n)
        if sum(row) > 0 and mcnemar_exact(row.count(-1), row.count(1)) <= 0.05
    )
    assert mcnemar_power(n, psi, delta) == pytest.approx(expected, abs=1e-12)


def test_the_smallest_difference_by_hand():
    # 6 questions: all six must fall on one side, δ^6 = 0.8
    assert smallest_difference(6) == pytest.approx(0.8 ** (1 / 6), abs=1e-5)
    assert smallest_difference(5) == smallest_difference(0) == math.inf
    assert smallest_difference(5, alpha=0.1) == pytest.approx(0.8 ** (1 / 5), abs=1e-5)
    assert smallest_difference(5.9999999999) == smallest_difference(6.7) == smallest_difference(6)


def test_many_questions_meet_the_normal_approximation():
    # Connor 1987: n = (1.959964 √ψ + 0.841621 √(ψ - δ²))² / δ²
    for n, psi in ((2000, 0.3), (20_000, 0.1), (100_000, 0.5)):
        delta = smallest_difference(n, psi)
        needed = (1.959964 * math.sqrt(psi) + 0.841621 * math.sqrt(psi - delta**2)) ** 2 / delta**2
        assert n == pytest.approx(needed, rel=0.04)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(6, 400), psi=st.floats(0.02, 1), power=st.floats(0.3, 0.95))
def test_what_is_called_visible_is_seen_with_that_power(n, psi, power):
    delta = smallest_difference(n, psi, power=power)
    if delta < math.inf:
        assert mcnemar_power(n, max(psi, delta), delta) >= power - 1e-9
        assert mcnemar_power(n, max(psi, delta - 1e-4), delta - 1e-4) < power
        assert smallest_difference(4 * n, psi, power=power) < delta


@pytest.mark.parametrize("bad", [{"n": -1}, {"n": 9, "disagreement": 0}, {"n": 9, "alpha": 1}, {"n": 9, "power": 0}])
def test_impossible_questions_are_refused(bad):
    with pytest.raises(ValueError, match="smallest_difference: got n="):
        smallest_difference(**bad)


def test_of_a_t_test():
    # Bloom's multiplier for many degrees of freedom is 2.8
    assert smallest_by_error(0.01, 1e9) == pytest.approx(0.028016, abs=1e-5)
    assert smallest_by_error(0.01, 4) == pytest.approx(0.01 * (stats.t.ppf(0.975, 4) + stats.t.ppf(0.8, 4)), rel=1e-9)
    assert smallest_by_error(0.5, 2) == math.inf


def test_patients_with_several_questions_give_a_range():
    assert smallest_told(60, 60) == f"{100 * smallest_difference(60):.1f}"
    assert smallest_told(60, 20) == f"{100 * smallest_difference(60):.1f} to {100 * smallest_difference(20):.1f}"
    assert smallest_told(9, 3).endswith(" to none")
    assert np.isinf(smallest_difference(3))
