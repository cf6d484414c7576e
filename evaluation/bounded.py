"""The mean of differences that lie in [-1, 1], with an interval that small samples do not make absurd."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from evaluation.clustered import Effective, effective


@dataclass(frozen=True)
class BoundedMean:
    """A mean of differences and what is known of its error.

    Attributes:
        mean: as it is.
        centre: of its interval: the mean with one difference of +1 and one of -1 added.
        variance: of the centre; never 0.
        worth: effective number of questions, degrees of freedom, patients.
        disagreement: mean square of the differences with those two added: of paired answers, the share of questions
            that only one of the models answers right.
    """

    mean: float
    centre: float
    variance: float
    worth: Effective
    disagreement: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """(low, high) by Student's quantile; within [-1, 1], around the mean, and never of no width."""
        return around(self.mean, self.centre, self.variance, self.worth.df, confidence)


def around(mean: float, centre: float, variance: float, df: float, confidence: float) -> tuple[float, float]:
    """Student's interval around a centre, cut to [-1, 1] and widened to hold the mean where that lies outside."""
    half = float(stdtrit(df, 0.5 + confidence / 2)) * math.sqrt(variance)
    return min(mean, max(-1.0, centre - half)), max(mean, min(1.0, centre + half))


def bounded_mean(differences: Sequence[float], clusters: Sequence[Hashable] | None = None) -> BoundedMean:
    """Average differences and add one of +1 and one of -1 to what the error is estimated from.

        c = n* d̄ / (n* + 2)      ψ = (n* mean(d²) + 2) / (n* + 2)      V = (ψ - c²) / (n* + 2)

    with n* questions that are worth those of the patients. For right and wrong answers to independent questions this is
    the adjusted Wald interval of Bonett and Price, with Student's quantile.

    Args:
        differences: (n,) in [-1, 1], at least one.
        clusters: (n,) ids of what goes together, such as patients; None takes every question by itself.

    Source: Bonett & Price 2012, J. Educ. Behav. Stat. 37:479; recommended by Fagerland, Lydersen & Laake 2014, Stat.
        Med. 33:2850. The effective number for patients is ours, see `evaluation.clustered.effective`.
    """
    array = np.asarray(differences, dtype=np.float64)
    worth = effective(array, clusters)
    mean, square = float(array.mean()), float((array * array).mean())
    centre = worth.n * mean / (worth.n + 2)
    disagreement = (worth.n * square + 2) / (worth.n + 2)
    return BoundedMean(mean, centre, (disagreement - centre**2) / (worth.n + 2), worth, disagreement)
