"""The mean over seeds that answered the same questions: of one method's answers, or of two methods' paired differences.

A table of seeds x questions holds two samples, crossed: other seeds would give other models, other patients other
questions. The interval that counts here is over seeds alone, for the questions as they are; what patients and items
add stands beside it. `evaluation.over_seeds` is for methods whose seeds have nothing in common: here seed 3 of one
method started from the same expert as seed 3 of the other, so that their difference is taken seed by seed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from evaluation.clustered import cluster_index, clustered_variance, degrees_of_freedom
from evaluation.detectable import smallest_by_error
from evaluation.statistics import check_confidence

Part = tuple[np.ndarray, Sequence[Hashable]]
"""One specialty: (S, n) values by seed and question, (n,) patients. Right is 1, wrong 0; a difference is of these."""


@dataclass(frozen=True)
class SeedMean:
    """A mean over seeds, questions and specialties. All numbers are fractions; what cannot be told is NaN.

    Attributes:
        mean: of the seeds' means; each specialty counts once.
        low: lower end of the interval over seeds, for these questions; NaN where all seeds came out alike.
        high: upper end.
        sd: standard deviation of the seeds' means.
        df: degrees of freedom of that interval, seeds - 1.
        p: two-sided t-test over seeds that the mean is 0; NaN where all came out alike.
        detectable: smallest true mean that such a test finds with 80 %, about; infinite if none.
        se_seed: standard error from the seeds alone, without what they make of a patient by chance.
        se_patient: from the answers about one patient going together.
        se_item: from the questions, as if each had a patient of its own. The squares of these three add up to that of
            the crossed interval.
        crossed_low: lower end of the interval over seeds and patients at once.
        crossed_high: upper end.
        crossed_df: its degrees of freedom, the fewer of those of seeds and of patients.
        seeds: how many.
        n: questions.
        n_clusters: patients; one with questions in two specialties counts twice.
    """

    mean: float
    low: float
    high: float
    sd: float
    df: int
    p: float
    detectable: float
    se_seed: float
    se_patient: float
    se_item: float
    crossed_low: float
    crossed_high: float
    crossed_df: float
    seeds: int
    n: int
    n_clusters: int


def seed_mean(parts: Sequence[Part], confidence: float = 0.95, bounds: tuple[float, float] = (-1.0, 1.0)) -> SeedMean:
    """Average over seeds, with the interval over seeds, and the error of seeds, patients and items apart.

        x̄ ± t_{S-1} s / √S            V = max(0, s² / S - V_both) + V_patient,   ν = min(S - 1, ν_patient)

    s is the standard deviation of the seeds' means; V, with V_patient the clustered variance of the mean over seeds,
    makes the crossed interval. What a seed makes of a patient by chance is in both of its terms, so that V_both,
    estimated from the doubly centred values summed by patient, is taken off once.

    Args:
        parts: specialties, each of which counts once; the same seeds in the same order in all, at least 2.
        confidence: coverage in (0, 1).
        bounds: of a value, to which intervals are cut: (0, 1) for right or wrong, (-1, 1) for differences of these.

    Raises:
        ValueError: no parts, fewer than two seeds, no questions, or shapes that do not fit.

    Source: two-way clustering: Cameron, Gelbach & Miller 2011, J. Bus. Econ. Stat. 29:238; smallest difference: Bloom
        1995, Evaluation Review 19:547.
    Choice: where all seeds came out alike, no interval over seeds is given: one without width would claim certainty.
    """
    check_confidence(confidence)
    _check(parts)
    count, seeds = len(parts), len(parts[0][0])
    means = np.mean([values.mean(1) for values, _ in parts], axis=0)
    mean, sd = float(means.mean()), float(means.std(ddof=1))
    alike = bool(np.ptp(means) < 1e-12)
    error, df = sd / math.sqrt(seeds), seeds - 1
    half = math.nan if alike else float(stdtrit(df, 0.5 + confidence / 2)) * error
    groups = [cluster_index(patients) for _, patients in parts]
    patient, item, shared, spread = 0.0, 0.0, 0.0, 0.0
    for (values, _), of in zip(parts, groups, strict=True):
        own = clustered_variance(values.mean(0), of)
        patient += own
        item += clustered_variance(values.mean(0))
        shared += shared_variance(values, of)
        spread += own**2 / degrees_of_freedom(np.bincount(of))
    patient, item, shared = (one / count**2 for one in (patient, item, shared))
    item = min(patient, item)
    seed = max(0.0, error**2 - shared)
    crossed_df = min(float(df), (patient * count**2) ** 2 / spread if spread > 0 else math.inf)
    wide = float(stdtrit(crossed_df, 0.5 + confidence / 2)) * math.sqrt(seed + patient)
    wide = wide if wide > 0 else math.nan
    low, high = bounds
    return SeedMean(
        mean,
        low=max(low, mean - half) if not alike else math.nan,
        high=min(high, mean + half) if not alike else math.nan,
        sd=sd,
        df=df,
        p=math.nan if alike else max(2 * float(stdtr(df, -abs(mean) / error)), math.ulp(0.0)),
        detectable=math.inf if alike else smallest_by_error(error, df, alpha=1 - confidence),
        se_seed=math.sqrt(seed),
        se_patient=math.sqrt(patient - item),
        se_item=math.sqrt(item),
        crossed_low=mean - min(wide, mean - low),
        crossed_high=mean + min(wide, high - mean),
        crossed_df=crossed_df,
        seeds=seeds,
        n=sum(values.shape[1] for values, _ in parts),
        n_clusters=sum(int(of.max()) + 1 for of in groups),
    )


def shared_variance(values: np.ndarray, of: np.ndarray) -> float:
    """Variance of a mean that seeds and patients have in common, from doubly centred values.

    Args:
        values: (S, n), at least 2 seeds.
        of: (n,) number of each question's patient.
    """
    seeds, questions = values.shape
    groups = int(of.max()) + 1
    if groups == 1:
        return 0.0
    left = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    sums = np.stack([np.bincount(of, weights=row, minlength=groups) for row in left])
    return float((sums**2).sum()) / questions**2 / (seeds * (seeds - 1)) * groups / (groups - 1)


def _check(parts: Sequence[Part]) -> None:
    shapes = [(values.shape, len(patients)) for values, patients in parts]
    fitting = all(len(shape) == 2 and shape[1] == n > 0 for shape, n in shapes)
    if not parts or not fitting or len({shape[0] for shape, _ in shapes}) != 1:
        raise ValueError(f"seed_mean: shapes do not fit: {shapes}; expected (seeds, n) and n patients, n at least 1")
    if shapes[0][0][0] < 2:
        raise ValueError(f"seed_mean: got {shapes[0][0][0]} seeds; the luck of a seed shows from 2 on")
