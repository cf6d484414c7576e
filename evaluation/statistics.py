"""Intervals, tests and corrections for right-or-wrong outcomes. Numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def score_interval(p: float, n: float, quantile: float) -> tuple[float, float]:
    """Bound a proportion by the Wilson score interval.

        (p + z²/2n ± z · sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n)

    Args:
        p: share of right answers.
        n: independent answers, at least 1; a fraction where it is an effective number.
        quantile: z, of the normal distribution or Student's.

    Returns:
        (low, high), both in [0, 1].

    Source: Wilson 1927, J. Am. Stat. Assoc. 22:209; recommended by Brown, Cai & DasGupta 2001, Stat. Sci. 16:101.
    """
    square = quantile * quantile
    centre = p + square / (2 * n)
    half = quantile * math.sqrt(p * (1 - p) / n + square / (4 * n * n))
    low, high = (centre - half) / (1 + square / n), (centre + half) / (1 + square / n)
    return (0.0 if p == 0 else low), (1.0 if p == 1 else high)  # exact where rounding is not


def mean_interval(estimates: Sequence[float], intervals: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Mean of independent estimates, each counting once, with an interval from theirs.

        L = θ̄ - sqrt( Σ_k (θ_k - l_k)² ) / K        U = θ̄ + sqrt( Σ_k (u_k - θ_k)² ) / K

    It stays within the range of the estimates' own intervals, and has a width where one of these has.

    Args:
        estimates: (K,) one per specialty.
        intervals: (K,) theirs, of one coverage, which is that of the result too.

    Returns:
        (mean, low, high).

    Raises:
        ValueError: no estimates, or lengths differ.

    Source: Zou & Donner 2008, Stat. Med. 27:1693 (MOVER), after Newcombe 1998, Stat. Med. 17:873.
    """
    if not estimates or len(estimates) != len(intervals):
        raise ValueError(f"mean_interval: got {len(estimates)} estimates and {len(intervals)} intervals")
    count = len(estimates)
    mean = math.fsum(estimates) / count
    below = math.hypot(*(value - low for value, (low, _) in zip(estimates, intervals, strict=True)))
    above = math.hypot(*(high - value for value, (_, high) in zip(estimates, intervals, strict=True)))
    lows, highs = zip(*intervals, strict=True)
    # never beyond the mean of the ends; that is so by the triangle inequality, and rounding is to keep it so
    return mean, max(mean - below / count, math.fsum(lows) / count), min(mean + above / count, math.fsum(highs) / count)


def mcnemar_exact(b: int, c: int) -> float:
    """Test whether two models differ on the same questions: two-sided exact binomial test on the discordant pairs.

        p = min(1, 2 · Σ_{i ≤ min(b, c)} C(b + c, i) / 2^(b + c))

    Args:
        b: questions that only the first model answers right.
        c: questions that only the second model answers right.

    Returns:
        p-value; 1 if no question tells the models apart. Never 0: the smallest float where it is smaller still.

    Raises:
        ValueError: a negative count.

    Source: McNemar 1947, Psychometrika 12:153; the exact form: Fagerland, Lydersen & Laake 2013, BMC Medical
        Research Methodology 13:91.
    """
    if b < 0 or c < 0:
        raise ValueError(f"mcnemar_exact: counts must not be negative, got {b} and {c}")
    n, term, total = b + c, 1, 0
    for i in range(min(b, c) + 1):  # whole numbers: no underflow however large n is
        total += term
        term = term * (n - i) // (i + 1)
    return min(1.0, max(2 * total / 2**n, math.ulp(0.0)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for looking at several specialties; the family-wise error rate is controlled.

        p'_(i) = max_{j ≤ i} min(1, (m - j + 1) · p_(j))        p_(1) ≤ … ≤ p_(m)

    Args:
        p_values: m of them, each in [0, 1].

    Returns:
        Adjusted p-values in the given order.

    Raises:
        ValueError: a value is outside [0, 1] or not a number.

    Source: Holm 1979, Scand. J. Stat. 6:65.
    """
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"holm: p-values must lie in [0, 1], got {list(p_values)}")
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (divisor n - 1) over seeds; the deviation of one value is NaN.

    Raises:
        ValueError: no values.
    """
    if len(values) == 0:
        raise ValueError("mean_sd: no values")
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else math.nan


def check_confidence(confidence: float) -> None:
    """Refuse a coverage outside (0, 1).

    Raises:
        ValueError: it is.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
