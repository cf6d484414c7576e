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


@dataclass(frozen=True)
class Headroom:
    """A share of the experts' gain. 1 is all of it, below 0 the agent is worse than the base.

    Attributes:
        share: NaN where the experts gained nothing.
        low: lower end of its interval; minus infinity where the questions do not bound it.
        high: upper end, or infinity.
    """

    share: float
    low: float
    high: float


def headroom(columns: Mapping[str, Outcomes], confidence: float = 0.95) -> Headroom:
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

    Source: Fieller 1954, J. R. Stat. Soc. B 16:175, with the interval of a paired difference of
        `evaluation.bounded.bounded_mean` and of a mean of `mean_interval` in place of the normal ones.
    """
    check_confidence(confidence)
    if not columns:
        raise ValueError("headroom: there is no specialty")
    gained, gain = (
        math.fsum(float(np.mean(np.subtract(getattr(one, name), one.base))) for one in columns.values()) / len(columns)
        for name in ("agent", "experts")
    )
    if gain == 0:
        return Headroom(math.nan, -math.inf, math.inf)
    share = gained / gain
    if holds_0(columns, lambda one: np.subtract(one.experts, one.base), confidence):
        return Headroom(share, -math.inf, math.inf)
    return Headroom(share, end(columns, share, -1, confidence), end(columns, share, 1, confidence))


def headroom_over_seeds(gained: Sequence[float], gain: Sequence[float], confidence: float = 0.95) -> Headroom:
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
    share = mean[0] / mean[1] if mean[1] else math.nan
    squared = float(stdtrit(count - 1, 0.5 + confidence / 2)) ** 2
    # (mean0 - h mean1)^2 <= t^2 (V00 - 2 h V01 + h^2 V11), a quadratic in h
    a = mean[1] ** 2 - squared * covariance[1, 1]
    b = mean[0] * mean[1] - squared * covariance[0, 1]
    c = mean[0] ** 2 - squared * covariance[0, 0]
    if a <= 0 or not covariance.any():
        return Headroom(float(share), -math.inf, math.inf)
    half = math.sqrt(max(0.0, b * b - a * c))
    return Headroom(float(share), float((b - half) / a), float((b + half) / a))


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

    def left_over(one: Outcomes) -> np.ndarray:
        gain = np.subtract(one.experts, one.base, dtype=np.float64)
        return (np.subtract(one.agent, one.base) - share * gain) / scale

    return holds_0(columns, left_over, confidence)


def holds_0(columns: Mapping[str, Outcomes], difference: Callable[[Outcomes], np.ndarray], confidence: float) -> bool:
    """Whether the interval of the mean of a difference over specialties holds 0."""
    found = [bounded_mean(difference(one), one.patients) for one in columns.values()]
    _, low, high = mean_interval([one.mean for one in found], [one.interval(confidence) for one in found])
    return low <= 0 <= high
