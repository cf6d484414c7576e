"""Two methods, each trained with several seeds, on the same patients: what of their difference is the luck of which.

Answers of one method form a table of seeds × questions, and the questions come in patients. Both are samples, crossed:
other seeds would give other models, other patients other questions. Neither may be taken for the other: averaging over
the seeds and testing over questions forgets the seeds, a t-test of the seeds' accuracies forgets the patients.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from evaluation.bounded import around, bounded_mean
from evaluation.clustered import cluster_index
from evaluation.detectable import smallest_by_error
from evaluation.seed_means import shared_variance


@dataclass(frozen=True)
class SeedDifference:
    """Accuracy of the second method minus that of the first, over seeds and patients.

    Attributes:
        difference: in [-1, 1]; positive where the second method is better.
        low: lower end of its interval.
        high: upper end.
        sd_a: standard deviation of the first method's accuracy over its seeds.
        sd_b: the same of the second.
        se_seed: standard error from the seeds alone.
        se_patient: from the answers about one patient going together.
        se_item: from the questions, as if each had a patient of its own. The squares of these three add up.
        df: degrees of freedom of their sum: the fewer of those of the seeds and of the patients.
        p: two-sided t-test.
        detectable: smallest true difference that such a test finds with 80 %, about; infinite if none.
        n_clusters: patients.
    """

    difference: float
    low: float
    high: float
    sd_a: float
    sd_b: float
    se_seed: float
    se_patient: float
    se_item: float
    df: float
    p: float
    detectable: float
    n_clusters: int


Part = tuple[np.ndarray, np.ndarray, Sequence[Hashable]]
"""One specialty: (S_a, n) and (S_b, n) of 1 for right and 0 for wrong, by seed and question; (n,) patients."""


def seed_difference(parts: Sequence[Part], confidence: float = 0.95) -> SeedDifference:
    """Compare two methods over seeds and patients at once.

        V = max(0, s_a² / S_a + s_b² / S_b - V_both) + V_patient        ν = min(ν_seed, ν_patient)

    s² is the variance of a method's accuracy over its seeds, V_patient the clustered variance over patients of the
    difference of the mean answers. What a seed makes of a patient by chance is in both, so that V_both, estimated from
    the doubly centred answers summed by patient, is taken off once.

    Args:
        parts: specialties, each of which counts once; one part for a single specialty or for all questions alike. The
            seeds of a method are the same, in the same order, in all parts; at least 2 of each method.
        confidence: coverage in (0, 1).

    Raises:
        ValueError: no parts, fewer than two seeds, or shapes that do not fit.

    Source: two-way clustering: Cameron, Gelbach & Miller 2011, J. Bus. Econ. Stat. 29:238. Degrees of freedom of the
        seeds: Welch 1947, Biometrika 34:28; of the patients: `evaluation.clustered.degrees_of_freedom`.
    Choice: the smaller of the two degrees of freedom, not Satterthwaite's of the sum, which takes seeds that came out
        alike by luck for proof that seeds do not matter: with 2 seeds each it rejected up to 16 % where 5 % belong.
    Choice: seeds of the two methods are independent samples, whatever their numbers: nothing makes seed 3 of one method
        like seed 3 of another.
    """
    _check(parts)
    count = len(parts)
    rows = [_Moments(*part) for part in parts]
    seeds = [_variance_of_seeds([part[side] for part in parts]) for side in (0, 1)]
    shared = sum(row.shared for row in rows) / count**2
    patient = sum(row.mean.variance for row in rows) / count**2
    item = min(patient, sum(row.item for row in rows) / count**2)
    seed = max(0.0, sum(seeds) - shared)
    df_patient = (patient * count**2) ** 2 / sum(row.mean.variance**2 / row.mean.worth.df for row in rows)
    df = max(1.0, min(_welch(seeds, [len(side) for side in parts[0][:2]]), df_patient))
    mean, centre = (sum(values) / count for values in zip(*((r.mean.mean, r.mean.centre) for r in rows), strict=True))
    error = math.sqrt(seed + patient)
    return SeedDifference(
        mean,
        *around(mean, centre, error**2, df, confidence),
        *(math.sqrt(one * len(side)) for one, side in zip(seeds, parts[0][:2], strict=True)),
        math.sqrt(seed),
        math.sqrt(patient - item),
        math.sqrt(item),
        df,
        max(2 * float(stdtr(df, -abs(centre) / error)), math.ulp(0.0)),
        smallest_by_error(error, df, alpha=1 - confidence),
        sum(row.mean.worth.n_clusters for row in rows),
    )


class _Moments:
    """What one specialty adds: the mean difference, its variance over items, and V_both."""

    def __init__(self, first: np.ndarray, second: np.ndarray, clusters: Sequence[Hashable]) -> None:
        of = cluster_index(clusters)
        differences = second.mean(0) - first.mean(0)
        self.mean = bounded_mean(differences, of)
        self.item = bounded_mean(differences).variance
        self.shared = shared_variance(first, of) + shared_variance(second, of)


def _variance_of_seeds(sides: Sequence[np.ndarray]) -> float:
    """Variance of a method's mean accuracy over specialties, from the spread of its seeds."""
    accuracies = np.mean([side.mean(1) for side in sides], axis=0)
    return float(accuracies.var(ddof=1)) / len(accuracies)


def _welch(variances: Sequence[float], seeds: Sequence[int]) -> float:
    """Degrees of freedom of a sum of two variances of means; of both samples together where neither varies."""
    parts = sum(v**2 / (count - 1) for v, count in zip(variances, seeds, strict=True))
    return sum(variances) ** 2 / parts if parts > 0 else float(sum(seeds) - 2)


def _check(parts: Sequence[Part]) -> None:
    shapes = [(first.shape, second.shape, len(clusters)) for first, second, clusters in parts]
    fitting = all(a[1] == b[1] == n > 0 for a, b, n in shapes)
    if not parts or not fitting or len({(a[0], b[0]) for a, b, _ in shapes}) != 1:
        raise ValueError(
            f"seed_difference: shapes do not fit: {shapes}; expected (seeds, n), (seeds, n) and n patients"
        )
    if min(shapes[0][0][0], shapes[0][1][0]) < 2:
        raise ValueError(
            f"seed_difference: got {shapes[0][0][0]} and {shapes[0][1][0]} seeds; the luck of a seed shows from 2 on, "
            "and is known well from 5 on"
        )
