"""Uncertainty where several questions share a patient or a picture. Arrays in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from evaluation.statistics import wilson


def cluster_index(clusters: Sequence[Hashable]) -> np.ndarray:
    """(n,) int: the number of each item's cluster, from 0."""
    if isinstance(clusters, range):  # every item by itself
        return np.arange(len(clusters))
    if isinstance(clusters, np.ndarray):
        return np.unique(clusters, return_inverse=True)[1]
    index = {key: i for i, key in enumerate(dict.fromkeys(clusters))}
    return np.fromiter((index[key] for key in clusters), dtype=np.int64, count=len(clusters))


def clustered_se(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> float:
    """Standard error of a mean whose items come in clusters.

        SE = sqrt( G / (G - 1) · Σ_g ( Σ_{i in g} (x_i - x̄) )² ) / n

    Args:
        values: (n,) such as 1 for right and 0 for wrong, or paired differences.
        clusters: (n,) ids; None takes every item for a cluster, which gives s / sqrt(n).

    Returns:
        In units of the values; NaN if there is one cluster alone.

    Raises:
        ValueError: nothing to average, or lengths differ.

    Source: Miller 2024, arXiv:2411.00640 (Liang & Zeger 1986, Biometrika 73:13).
    Choice: the factor G / (G - 1), with which the formula meets the usual standard error where every item is a
        cluster of its own; statsmodels' cluster-robust covariance has it too.
    """
    array = np.asarray(values, dtype=np.float64)
    groups = range(len(array)) if clusters is None else clusters
    if len(array) == 0 or len(array) != len(groups):
        raise ValueError(f"clustered_se: got {len(array)} values and {len(groups)} clusters, expected the same, not 0")
    sums = np.bincount(cluster_index(groups), weights=array - array.mean())
    count = len(sums)
    return math.sqrt(count / (count - 1) * float(sums @ sums)) / len(array) if count > 1 else math.nan


def clustered_wilson(
    correct: Sequence[bool], clusters: Sequence[Hashable], confidence: float = 0.95
) -> tuple[float, float]:
    """Bound an accuracy by Wilson's interval at the effective number of items.

        n_eff = n / max(1, SE_clustered² / SE²)

    Args:
        correct: (n,) right or wrong.
        clusters: (n,) ids.
        confidence: coverage in (0, 1).

    Returns:
        (low, high), never narrower than that of independent items, and equal to it if every item is a cluster.

    Source: Korn & Graubard 1998, Survey Methodology 24:193, with Wilson's interval in place of the exact one.
    Choice: the normal quantile, so that nothing changes where every item is a cluster. With few clusters the interval
        is too short: in simulations a nominal 95 % covered 88 % with 5 clusters, 92 % with 10, 94 to 95 % from 30 on.
    Choice: where nothing varies (all right or all wrong) the design effect is unknown, and the number of clusters is
        taken for n_eff.
    """
    n, right = len(correct), int(np.asarray(correct, dtype=np.int64).sum())
    independent, together = clustered_se(correct), clustered_se(correct, clusters)
    if not independent > 0 or math.isnan(together):
        effective = float(cluster_index(clusters).max() + 1)
    else:
        effective = n / max(1.0, (together / independent) ** 2)
    return wilson(right / n * effective, effective, confidence)
