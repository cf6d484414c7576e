"""Which share of what the experts gained over the base an agent has, with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from evaluation.bounded import bounded_mean
from evaluation.statistics import check_confidence, mean_interval

FARTHEST = 16.0
"""Shares beyond this are not told from infinite ones."""
HALVINGS = 25
"""Of the bisection for an end of the interval."""
ALIKE = 1e-12
"""Accuracies of seeds that differ by less differ by rounding."""


@dataclass(frozen=True)
class Outcomes:
    """Who was right on the questions of one specialty; (n,) each, in one order.

    Attributes:
        base: 1 where the base is right, else 0.
        agent: the same for the agent.
        experts: the same for the specialty's own expert.
        patients: whom each question is about.
    """

    base: Sequence[int]
    agent: Sequence[int]
    experts: Sequence[int]
    patients: Sequence[Hashable]

    def gain(self) -> np.ndarray:
        """(n,) experts - base."""
        return np.subtract(self.experts, self.base, dtype=np.float64)

    def gained(self) -> np.ndarray:
        """(n,) agent - base."""
        return np.subtract(self.agent, self.base, dtype=np.float64)

    def cost(self) -> np.ndarray:
        """(n,) agent - experts."""
        return np.subtract(self.agent, self.experts, dtype=np.float64)


@dataclass(frozen=True)
class Share:
    """A share of the experts' gain. 1 is all of it, below 0 the agent is worse than the base.

    Attributes:
        share: NaN where the experts gained nothing.
        low: lower end of its interval; minus infinity where it is not bounded.
        high: upper end, or infinity.
    """

    share: float
    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether both ends are known; else the share is not told either, for it may be anything."""
        return all(map(math.isfinite, self.interval))

    @property
    def interval(self) -> tuple[float, float, float]:
        """(share, low, high)."""
        return self.share, self.low, self.high

    @property
    def cells(self) -> tuple[float, float, float] | tuple[str, str, str]:
        """(share, low, high) for a file of numbers; empty where it is not bounded."""
        return self.interval if self.bounded else ("", "", "")


def share_of_gain(columns: Mapping[str, Outcomes], confidence: float = 0.95) -> Share:
    """Estimate the share of the experts' gain that an agent has, each specialty counting once.

        h = (agent - base) / (experts - base)

    The interval holds every h for which agent - base - h · (experts - base) may be 0. So it holds 0 exactly where the
    interval of agent - base does, and 1 where that of agent - experts does; it has no end where the questions do not
    show that the experts gained anything.

    Args:
        columns: specialty -> who was right.
        confidence: coverage in (0, 1).

    Raises:
        ValueError: there is no specialty.

    Source: Fieller 1954, J. R. Stat. Soc. B 16:175, with the intervals of `mean_difference` in place of the normal
        ones.
    """
    gain, low, _ = mean_difference(columns, Outcomes.gain, confidence)
    if gain <= 0:
        return Share(math.nan, -math.inf, math.inf)
    share = mean_difference(columns, Outcomes.gained, confidence)[0] / gain
    if low <= 0:
        return Share(share, -math.inf, math.inf)
    return Share(share, end(columns, share, -1, confidence), end(columns, share, 1, confidence))


def share_over_seeds(gained: Sequence[float], gain: Sequence[float], confidence: float = 0.95) -> Share:
    """The same over seeds, for these questions: the mean gain of the agents by that of the experts.

    Args:
        gained: (S,) agent - base by seed, S at least 2.
        gain: (S,) experts - base of the same seeds.
        confidence: coverage in (0, 1).

    Source: Fieller 1954, with Student's quantile of S - 1 degrees of freedom. No interval is given where the seeds do
        not show a gain of the experts, or where all came out alike.
    """
    check_confidence(confidence)
    count, pair = len(gained), np.array([gained, gain], dtype=np.float64)
    mean, covariance = pair.mean(1), np.cov(pair) / count
    if mean[1] <= 0:
        return Share(math.nan, -math.inf, math.inf)
    share = float(mean[0] / mean[1])
    squared = float(stdtrit(count - 1, 0.5 + confidence / 2)) ** 2
    # (mean0 - h mean1)^2 <= t^2 (V00 - 2 h V01 + h^2 V11), a quadratic in h
    a = mean[1] ** 2 - squared * covariance[1, 1]
    b = mean[0] * mean[1] - squared * covariance[0, 1]
    c = mean[0] ** 2 - squared * covariance[0, 0]
    if a <= 0 or np.ptp(pair, axis=1).max() < ALIKE:
        return Share(share, -math.inf, math.inf)
    half = math.sqrt(max(0.0, b * b - a * c))
    return Share(share, float((b - half) / a), float((b + half) / a))


def end(columns: Mapping[str, Outcomes], share: float, direction: int, confidence: float) -> float:
    """The farthest share in a direction from the estimate that the answers allow."""
    reach = 0.125
    while allowed(columns, share + direction * reach, confidence):
        if reach > FARTHEST:
            return direction * math.inf
        reach *= 2
    inside, outside = (reach / 2 if reach > 0.125 else 0.0), reach
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        if allowed(columns, share + direction * middle, confidence):
            inside = middle
        else:
            outside = middle
    return share + direction * inside


def allowed(columns: Mapping[str, Outcomes], share: float, confidence: float) -> bool:
    """Whether the interval of agent - base - share · (experts - base) holds 0."""
    scale = max(1.0, share, 1 - share)  # brings what is averaged into [-1, 1]
    _, low, high = mean_difference(columns, lambda one: (one.gained() - share * one.gain()) / scale, confidence)
    return low <= 0 <= high


def mean_difference(
    columns: Mapping[str, Outcomes], difference: Callable[[Outcomes], np.ndarray], confidence: float = 0.95
) -> tuple[float, float, float]:
    """The mean over specialties of a paired difference, with the interval that all comparisons use.

    Args:
        columns: specialty -> who was right.
        difference: (n,) of one specialty, in [-1, 1].
        confidence: coverage in (0, 1).

    Returns:
        (mean, low, high).

    Raises:
        ValueError: there is no specialty.

    Source: `evaluation.bounded.bounded_mean` for each, `evaluation.statistics.mean_interval` for their mean.
    """
    check_confidence(confidence)
    found = [bounded_mean(difference(one), one.patients) for one in columns.values()]
    return mean_interval([one.mean for one in found], [one.interval(confidence) for one in found])
