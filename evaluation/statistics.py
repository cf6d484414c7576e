"""Intervals and paired tests for right-or-wrong outcomes. Arrays in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Bound a proportion by the Wilson score interval.

        (p + z²/2n ± z · sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n)

    Args:
        successes: right answers, 0 to n.
        n: answers, at least 1.
        confidence: coverage in (0, 1).

    Returns:
        (low, high), both in [0, 1].

    Raises:
        ValueError: n < 1, successes outside [0, n], or confidence outside (0, 1).

    Source: Wilson 1927, J. Am. Stat. Assoc. 22:209; recommended by Brown, Cai & DasGupta 2001, Stat. Sci. 16:101.
    Choice: answers count as independent; several questions about one patient make the interval too narrow.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson: got {successes} of {n}, expected 0 <= successes <= n and n >= 1")
    _check_confidence(confidence)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)  # exact where rounding is not


def mcnemar_exact(b: int, c: int) -> float:
    """Test whether two models differ on the same questions: two-sided exact binomial test on the discordant pairs.

        p = min(1, 2 · Σ_{i ≤ min(b, c)} C(b + c, i) / 2^(b + c))

    Args:
        b: questions that only the first model answers right.
        c: questions that only the second model answers right.

    Returns:
        p-value; 1 if no question tells the models apart.

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
    return min(1.0, 2 * total / 2**n)


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of the second model minus that of the first, on the same questions.

    Attributes:
        difference: in [-1, 1]; positive where the second model is better.
        low: lower end of the bootstrap interval.
        high: upper end.
        only_a: b, questions that only the first model answers right.
        only_b: c, questions that only the second model answers right.
        p: of the exact McNemar test, which treats the questions as independent.
        n: questions.
        n_clusters: patients, or whatever was resampled together.
    """

    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p: float
    n: int
    n_clusters: int


def paired_difference(
    correct_a: Sequence[bool],
    correct_b: Sequence[bool],
    clusters: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two models by a paired percentile bootstrap that draws whole clusters.

    Clusters with the same (sum of differences, size) are interchangeable, so that a resample is one multinomial draw
    over the distinct kinds: the same distribution as drawing clusters one by one, at a cost that does not grow with n.

    Args:
        correct_a: (n,) whether the first model is right.
        correct_b: (n,) the same questions in the same order.
        clusters: (n,) ids of what is drawn together, such as patients; None draws questions.
        confidence: coverage in (0, 1).
        n_resamples: bootstrap draws, at least 1.
        seed: of the draws.

    Raises:
        ValueError: lengths differ, there is nothing to compare, or an option is out of range.

    Source: Efron & Tibshirani 1993, chapter 13; clusters: Miller 2024, arXiv:2411.00640.
    """
    _check_confidence(confidence)
    first, second = np.asarray(correct_a, dtype=np.int64), np.asarray(correct_b, dtype=np.int64)
    groups = range(len(first)) if clusters is None else clusters
    if not len(first) == len(second) == len(groups):
        raise ValueError(f"paired_difference: lengths differ: {len(first)}, {len(second)}, clusters {len(groups)}")
    if len(first) == 0 or n_resamples < 1:
        raise ValueError(
            f"paired_difference: got n={len(first)} and n_resamples={n_resamples}, both must be at least 1"
        )
    if not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()):
        raise ValueError("paired_difference: outcomes must be right or wrong (1 or 0)")
    index = {key: i for i, key in enumerate(dict.fromkeys(groups))}
    of = np.array([index[key] for key in groups])
    sums = np.bincount(of, weights=second - first, minlength=len(index)).astype(np.int64)
    sizes = np.bincount(of, minlength=len(index))
    kinds, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(index), counts / len(index), size=n_resamples)
    resampled = (draws @ kinds[:, 0]) / (draws @ kinds[:, 1])
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    only_a, only_b = int((first > second).sum()), int((second > first).sum())
    return PairedDifference(
        (only_b - only_a) / len(first),
        float(low),
        float(high),
        only_a,
        only_b,
        mcnemar_exact(only_a, only_b),
        len(first),
        len(index),
    )


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


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
