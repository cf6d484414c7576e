"""The smallest difference between two models that so many questions could show."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import bdtr, gammaln, stdtrit, xlog1py, xlogy

DISAGREEMENT = 0.3
"""Share of questions that only one of two models answers right, where it is not known yet."""
STEPS = 20
"""Of the bisection; the answer is exact to 1e-6."""


def smallest_difference(
    n: float, disagreement: float = DISAGREEMENT, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Smallest true difference in accuracy that an exact paired test of n questions finds with the given chance.

    Args:
        n: questions that are independent, such as one per patient; of several per patient either the number of patients
            (as if they all went together) or an effective number, whose whole part counts.
        disagreement: share of questions that only one of the models answers right. Models that differ by more than
            this disagree on as many questions as they differ by.
        alpha: two-sided error rate of the test.
        power: chance to find the difference.

    Returns:
        A fraction, 0.1 for ten points; infinity where not even a difference of 100 points is found, as with fewer than
        6 questions at 5 %.

    Raises:
        ValueError: a share is outside (0, 1), or n is negative.

    Examples:
        >>> [round(100 * smallest_difference(n), 1) for n in (5, 20, 300)]
        [inf, 36.6, 9.1]
    """
    if not (0 < disagreement <= 1 and 0 < alpha < 1 and 0 < power < 1 and n >= 0):
        raise ValueError(
            f"smallest_difference: got n={n}, disagreement={disagreement}, alpha={alpha}, power={power}; expected "
            "n >= 0 and shares in (0, 1)"
        )
    low, high = 0.0, 1.0
    n = int(n + 1e-9)  # an effective number of 6 may come out a hair below
    if mcnemar_power(n, 1.0, 1.0, alpha) < power:
        return math.inf
    for _ in range(STEPS):
        middle = (low + high) / 2
        if mcnemar_power(n, max(disagreement, middle), middle, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def smallest_by_error(error: float, df: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true difference that a two-sided t-test finds with the given chance, about.

        δ = ( t_ν(1 - α/2) + t_ν(power) ) · SE

    Args:
        error: standard error of the difference, as a fraction.
        df: ν, its degrees of freedom.
        alpha: two-sided error rate of the test.
        power: chance to find the difference.

    Returns:
        A fraction; infinity where it is above 1.

    Source: Bloom 1995, Evaluation Review 19:547 (minimum detectable effects).
    """
    found = float(stdtrit(df, 1 - alpha / 2) + stdtrit(df, power)) * error
    return found if found <= 1 else math.inf


def mcnemar_power(n: int, disagreement: float, difference: float, alpha: float = 0.05) -> float:
    """Chance that McNemar's exact test of n questions finds a difference, on the side where it is.

        Σ_m Bin(m; n, ψ) · P(Bin(m, (ψ - δ) / 2ψ) ≤ k_m)        k_m = max{k: 2 P(Bin(m, 1/2) ≤ k) ≤ α}

    Args:
        n: questions, independent.
        disagreement: ψ, share of questions that only one model answers right.
        difference: δ, accuracy of the better model minus that of the other; at most ψ.
        alpha: two-sided error rate.

    Source: Connor 1987, Biometrics 43:207 and its exact form in O'Brien 2002, whose example the test recomputes.
    """
    reach = 10 * math.sqrt(n * disagreement * (1 - disagreement)) + 1
    first, last = max(0, math.floor(n * disagreement - reach)), min(n, math.ceil(n * disagreement + reach))
    m = np.arange(first, last + 1, dtype=np.float64)
    chances = np.exp(
        gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1) + xlogy(m, disagreement) + xlog1py(n - m, -disagreement)
    )
    return float(
        chances @ _lower_tail(_critical(first, last, alpha / 2), m, (disagreement - difference) / (2 * disagreement))
    )


def smallest_told(n: int, n_patients: int) -> str:
    """The smallest difference that n questions could show, in points, before any is asked.

    Where patients have several questions, how much these go together is not known yet: from all independent to all of
    a patient alike.

    Examples:
        >>> smallest_told(300, 300), smallest_told(300, 100), smallest_told(8, 4), smallest_told(4, 4)
        ('9.1', '9.1 to 15.9', '80.1 to none', 'none')
    """
    ends = [smallest_difference(count) for count in dict.fromkeys((n, min(n, n_patients)))]
    return " to ".join(dict.fromkeys("none" if math.isinf(end) else f"{100 * end:.1f}" for end in ends))


@lru_cache(maxsize=64)
def _critical(first: int, last: int, tail: float) -> np.ndarray:
    """Largest k with P(Bin(m, 1/2) ≤ k) ≤ tail, for m = first … last; -1 where there is none."""
    m = np.arange(first, last + 1, dtype=np.float64)
    low, high = np.full(len(m), -1.0), m.copy()  # the tail is at most that of `low`, above that of `high`
    while (high - low > 1).any():
        middle = np.where(high - low > 1, np.floor((low + high) / 2), low)
        fits = _lower_tail(middle, m, 0.5) <= tail
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return low


def _lower_tail(k: np.ndarray, m: np.ndarray, chance: float) -> np.ndarray:
    """P(Bin(m, chance) ≤ k); 0 for k = -1."""
    return np.where(k < 0, 0.0, bdtr(np.maximum(k, 0), m.astype(np.int64), chance))
