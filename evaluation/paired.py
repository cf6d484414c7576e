"""Two models on the same questions: difference, interval and tests that respect who shares a patient."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.bounded import bounded_mean
from evaluation.clustered import cluster_index
from evaluation.detectable import smallest_difference
from evaluation.sign_flip import sign_flip_p
from evaluation.statistics import check_confidence, mcnemar_exact


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of the second model minus that of the first, on the same questions.

    Attributes:
        difference: in [-1, 1]; positive where the second model is better.
        low: lower end of its interval.
        high: upper end.
        only_a: b, questions that only the first model answers right.
        only_b: c, questions that only the second model answers right.
        p_mcnemar: of the exact McNemar test, which treats the questions as independent.
        p: of the exact sign-flip test of whole clusters; McNemar's where every question is a cluster.
        detectable: smallest true difference that a test of these questions would find with 80 %; infinite if there are
            too few for any.
        df: degrees of freedom of the interval, by which Student's quantile is taken.
        n_effective: number of independent questions that would say as much.
        disagreement: share of questions that only one model answers right, with one more for either.
        n: questions.
        n_clusters: patients, or whatever goes together.
    """

    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p_mcnemar: float
    p: float
    detectable: float
    df: float
    n_effective: float
    disagreement: float
    n: int
    n_clusters: int


def paired_difference(
    correct_a: Sequence[bool],
    correct_b: Sequence[bool],
    clusters: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
) -> PairedDifference:
    """Compare two models: exact tests, and an interval that holds with few questions and few patients.

    Args:
        correct_a: (n,) whether the first model is right.
        correct_b: (n,) the same questions in the same order.
        clusters: (n,) ids of what goes together, such as patients; None takes every question by itself.
        confidence: coverage in (0, 1); the smallest difference is that of a test at 1 - confidence.

    Raises:
        ValueError: lengths differ, there is nothing to compare, or an option is out of range.

    Source: interval: `evaluation.bounded.bounded_mean`; test: `evaluation.sign_flip.sign_flip_p`.
    """
    check_confidence(confidence)
    first, second = np.asarray(correct_a, dtype=np.int64), np.asarray(correct_b, dtype=np.int64)
    groups = range(len(first)) if clusters is None else clusters
    if not len(first) == len(second) == len(groups):
        raise ValueError(f"paired_difference: lengths differ: {len(first)}, {len(second)}, clusters {len(groups)}")
    if len(first) == 0:
        raise ValueError("paired_difference: there are no questions to compare on")
    if not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()):
        raise ValueError("paired_difference: outcomes must be right or wrong (1 or 0)")
    of = cluster_index(groups)
    found = bounded_mean(second - first, of)
    only_a, only_b = int((first > second).sum()), int((second > first).sum())
    return PairedDifference(
        (only_b - only_a) / len(first),
        *found.interval(confidence),
        only_a,
        only_b,
        mcnemar_exact(only_a, only_b),
        sign_flip_p(second - first, of),
        smallest_difference(found.worth.n, found.disagreement, alpha=1 - confidence),
        found.worth.df,
        found.worth.n,
        found.disagreement,
        len(first),
        found.worth.n_clusters,
    )
