"""Two models on the same questions: difference, interval and tests that respect who shares a patient."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.clustered import cluster_index, clustered_se
from evaluation.statistics import check_confidence, mcnemar_exact

ROUNDING = 1e-12
"""What an inverse transform of chances that sum to 1 leaves in doubt; no p-value is claimed below it."""


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of the second model minus that of the first, on the same questions.

    Attributes:
        difference: in [-1, 1]; positive where the second model is better.
        low: lower end of the bootstrap interval.
        high: upper end.
        only_a: b, questions that only the first model answers right.
        only_b: c, questions that only the second model answers right.
        p_mcnemar: of the exact McNemar test, which treats the questions as independent.
        p: of the exact sign-flip test of whole clusters; McNemar's where every question is a cluster.
        se: standard error of the difference, clustered.
        n: questions.
        n_clusters: patients, or whatever was resampled together.
    """

    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p_mcnemar: float
    p: float
    se: float
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
    check_confidence(confidence)
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
    of = cluster_index(groups)
    sums = np.bincount(of, weights=second - first).astype(np.int64)
    sizes = np.bincount(of)
    kinds, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(sums), counts / len(sums), size=n_resamples)
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
        sign_flip_p(second - first, of),
        clustered_se(second - first, of),
        len(first),
        len(sums),
    )


def sign_flip_p(differences: Sequence[float], clusters: Sequence[Hashable] | None = None) -> float:
    """Test whether paired differences favour one side: exact two-sided sign-flip test of whole clusters.

        T = Σ_g ε_g s_g,   ε_g = ±1 with equal chance,   s_g = Σ_{i in g} d_i        p = P(|T| ≥ |Σ_g s_g|)

    Where no |s_g| exceeds 1, as with one question per cluster, this is McNemar's exact test and computed as that. Else
    the distribution of T is not sampled: its characteristic function Π_g cos(θ s_g) is inverted on a grid as fine as T
    itself.

    Args:
        differences: (n,) whole numbers, here right (1) minus right (0).
        clusters: (n,) ids of what is flipped together, such as patients; None flips every item by itself.

    Returns:
        p-value. McNemar's is exact; others are exact to about 1e-12 in absolute terms, and what the inversion puts
        below that is given as 1e-12, or as the smallest p there can be, 2^(1 - G), if that is larger.

    Raises:
        ValueError: lengths differ, or a difference is not a whole number.

    Source: Fisher 1935, The Design of Experiments, section 21; whole clusters keep their sign together because the
        answers about one patient are not independent.
    """
    array = np.asarray(differences, dtype=np.float64)
    groups = range(len(array)) if clusters is None else clusters
    if len(array) != len(groups) or not (array == np.rint(array)).all():
        raise ValueError(
            f"sign_flip_p: got {len(array)} differences and {len(groups)} clusters; expected as many of both, and "
            "whole numbers"
        )
    sums = np.bincount(cluster_index(groups), weights=array) if len(array) else np.zeros(0)
    sizes, counts = np.unique(np.abs(sums).astype(np.int64), return_counts=True)
    total = int(sizes @ counts)
    if total == 0:
        return 1.0
    if sizes.max() == 1:
        return mcnemar_exact(int((sums < 0).sum()), int((sums > 0).sum()))
    observed = abs(int(sums.sum()))
    # T has the parity of its maximum, so that halving its range makes every whole number a possible value.
    points = total + 1
    angles = np.pi * np.arange(points) / points
    logs = np.zeros(points)
    signs = np.ones(points)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        cosine = np.cos(angles * size)
        with np.errstate(divide="ignore"):
            logs += count * np.log(np.abs(cosine))
        signs *= np.where(cosine < 0, (-1.0) ** count, 1.0)
    # P((T + total) / 2 = j) by the inverse transform of E exp(i θ (T + total)), θ = 2π k / points / 2
    phases = np.exp(1j * angles * total)
    chances = np.fft.fft(signs * np.exp(logs) * phases).real / points
    values = 2 * np.arange(points) - total
    smallest = 2.0 ** (1 - np.count_nonzero(sums))
    return float(min(1.0, max(chances[np.abs(values) >= observed].sum(), smallest, ROUNDING)))


def macro_difference(differences: Sequence[float], errors: Sequence[float]) -> tuple[float, float, float]:
    """Mean difference over specialties, each counting once, whatever its size.

        Δ = mean_k Δ_k        SE = sqrt(Σ_k SE_k²) / K        p = 2 Φ(-|Δ| / SE)

    Args:
        differences: (K,) one per specialty.
        errors: (K,) their standard errors, as of `clustered_se`; the specialties are taken for independent.

    Returns:
        (Δ, SE, p); p is 1 where nothing differs, NaN where an error is unknown.

    Raises:
        ValueError: no specialties, or lengths differ.
    """
    if not differences or len(differences) != len(errors):
        raise ValueError(f"macro_difference: got {len(differences)} differences and {len(errors)} errors")
    mean = math.fsum(differences) / len(differences)
    error = math.sqrt(math.fsum(e * e for e in errors)) / len(errors)
    if error == 0:
        return mean, error, 1.0 if mean == 0 else 0.0
    return mean, error, math.erfc(abs(mean) / error / math.sqrt(2))
