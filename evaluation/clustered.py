"""Uncertainty where several questions share a patient or a picture. Arrays in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from evaluation.statistics import check_confidence, score_interval


def cluster_index(clusters: Sequence[Hashable]) -> np.ndarray:
    """(n,) int: the number of each item's cluster, from 0."""
    if isinstance(clusters, range):  # every item by itself
        return np.arange(len(clusters))
    if isinstance(clusters, np.ndarray):
        return np.unique(clusters, return_inverse=True)[1]
    index = {key: i for i, key in enumerate(dict.fromkeys(clusters))}
    return np.fromiter((index[key] for key in clusters), dtype=np.int64, count=len(clusters))


@dataclass(frozen=True)
class Effective:
    """What the items of clusters are worth.

    Attributes:
        n: number of independent items that would give a mean as certain as this one; at most that of the items.
        df: degrees of freedom of its standard error, at least 1: patients minus one, and fewer where one patient has
            many of the questions.
        n_clusters: patients.
    """

    n: float
    df: float
    n_clusters: int


def effective(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Effective:
    """Say what the items of clusters are worth.

        n_eff = n / max(1, V_clustered / V_independent)

    Args:
        values: (n,) such as 1 for right and 0 for wrong, or paired differences.
        clusters: (n,) ids; None takes every item for a cluster.

    Source: Korn & Graubard 1998, Survey Methodology 24:193.
    Choice: where nothing varies (all right, or all wrong) the data say nothing of how much a patient's answers go
        together; they are taken to go together wholly, n_eff = n² / Σ m_g² (Kish 1965), the number of patients where
        each has as many questions.
    """
    array = np.asarray(values, dtype=np.float64)
    of = cluster_index(range(len(array)) if clusters is None else clusters)
    sizes = np.bincount(of)
    n, count = len(array), len(sizes)
    if count == n:
        return Effective(float(n), float(max(1, n - 1)), count)
    independent = float(array.var()) / (n - 1)
    together = clustered_variance(array, of)
    if independent > 1e-15 and not math.isnan(together):
        worth = n / max(1.0, together / independent)
    else:
        worth = n**2 / float(sizes @ sizes)
    return Effective(worth, degrees_of_freedom(sizes), count)


def clustered_variance(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> float:
    """Variance of a mean whose items come in clusters, without the bias of few or unequal clusters (CR2).

        V = Σ_g ( Σ_{i in g} (x_i - x̄) )² / (1 - m_g / n) / n²

    Args:
        values: (n,).
        clusters: (n,) ids; None takes every item for a cluster, which gives s² / n.

    Returns:
        In squared units of the values; NaN if there is one cluster alone.

    Raises:
        ValueError: nothing to average, or lengths differ.

    Source: Bell & McCaffrey 2002, Survey Methodology 28:169, for a mean.
    Choice: sums that are 0 but for rounding are 0, so that what is counted of them (degrees of freedom) does not hang
        on the order of the items.
    """
    array = np.asarray(values, dtype=np.float64)
    groups = range(len(array)) if clusters is None else clusters
    if len(array) == 0 or len(array) != len(groups):
        raise ValueError(f"clustered: got {len(array)} values and {len(groups)} clusters, expected the same, not 0")
    of = cluster_index(groups)
    sums, sizes = np.bincount(of, weights=array - array.mean()), np.bincount(of)
    if len(sums) == 1:
        return math.nan
    sums[np.abs(sums) <= 4 * len(array) * np.finfo(np.float64).eps * np.abs(array).max()] = 0.0
    return float((sums**2 / (1 - sizes / len(array))).sum()) / len(array) ** 2


def degrees_of_freedom(sizes: Sequence[int]) -> float:
    """Degrees of freedom of `clustered_variance`, at least 1: G - 1 for equal clusters, fewer for unequal ones.

        ν = (Σ_g m_g)² / ( Σ_g m_g² + Σ_{g≠h} (w_g w_h n)² / ((1 - w_g)(1 - w_h)) )        w_g = m_g / n

    Args:
        sizes: (G,) items of each cluster, m_g.

    Source: Satterthwaite's approximation of Bell & McCaffrey 2002, Survey Methodology 28:169; see Imbens & Kolesár
        2016, Rev. Econ. Stat. 98:701.
    """
    held = np.asarray(sizes, dtype=np.float64)
    if len(held) < 2:
        return 1.0
    weights = held / held.sum()
    crossed = weights**2 / (1 - weights)
    pairs = crossed.sum() ** 2 - float(crossed @ crossed)
    return float(max(1.0, 1 / (float(weights @ weights) + pairs)))


def clustered_wilson(
    correct: Sequence[float], clusters: Sequence[Hashable], confidence: float = 0.95
) -> tuple[float, float]:
    """Bound an accuracy by Wilson's interval at the effective number of items, with Student's quantile.

    Args:
        correct: (n,) right or wrong; credits in [0, 1] between vary less than these, so their interval is too wide.
        clusters: (n,) ids.
        confidence: coverage in (0, 1).

    Returns:
        (low, high).

    Source: Wilson's interval in the frame of Korn & Graubard 1998; see `effective`.
    Choice: Student's quantile where Wilson has the normal one: how much a patient's answers go together is itself
        estimated from few patients, and of 4 independent answers Wilson's covers 88 % where half are right. From 100
        patients on it is 1 % wider at most.
    """
    check_confidence(confidence)
    right = np.asarray(correct, dtype=np.float64)
    worth = effective(right, clusters)
    return score_interval(float(right.mean()), worth.n, float(stdtrit(worth.df, 0.5 + confidence / 2)))
