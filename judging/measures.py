"""What a judge's verdicts are worth: accuracy, orders, length. Arrays in, shares with clustered intervals out.

In every interval a case's six verdicts, and cases that share a picture, go together: shares have that of
`evaluation.clustered.clustered_wilson`, kappa the jackknife's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.clustered import clustered_wilson
from evaluation.statistics import mean_interval
from judging.agreement import cohen_kappa
from judging.sheet import Rows

NOT_MEASURED = math.nan


@dataclass(frozen=True)
class Measure:
    """A number with its interval.

    Attributes:
        value: in [0, 1]; of kappa in [-1, 1]; NaN where there is nothing to measure.
        low: lower end.
        high: upper end.
        n: verdicts that it is a share of.
    """

    value: float = NOT_MEASURED
    low: float = NOT_MEASURED
    high: float = NOT_MEASURED
    n: int = 0


def share(outcomes: np.ndarray, clusters: np.ndarray, confidence: float = 0.95) -> Measure:
    """The share of True with its clustered interval; nothing of nothing."""
    if len(outcomes) == 0:
        return Measure()
    low, high = clustered_wilson(outcomes, clusters, confidence)
    return Measure(float(np.mean(outcomes)), low, high, len(outcomes))


def macro(parts: Sequence[Measure]) -> Measure:
    """The mean of organs, each counting once; NaN where one of them has nothing."""
    if not parts or any(math.isnan(part.value) for part in parts):
        return Measure()
    found = mean_interval([part.value for part in parts], [(part.low, part.high) for part in parts])
    return Measure(*found, sum(part.n for part in parts))


def measures(rows: Rows, confidence: float = 0.95) -> dict[str, Measure]:
    """Everything that is measured of a group of verdicts.

    Args:
        rows: verdicts of some cases on some dimensions.
        confidence: coverage of the intervals.

    Returns:
        By name, all over the order given unless another is named:

        accuracy: right verdicts of all; none is wrong.
        strict_accuracy: the same, strictly read.
        answered: verdicts that could be read; strictly_answered likewise.
        accuracy_answered: right ones of those that could be read.
        longer: of answers of unequal length and read verdicts, those for the longer answer.
        longer_physicians: the physicians' choices of it on the same rows.
        accuracy_longer, accuracy_shorter: right ones where physicians chose the longer, the shorter answer.
        kappa: Cohen's, with the physicians, of read verdicts.

        And where both orders were asked:

        accuracy_swapped: right ones in the swapped order; accuracy_mean: of both orders together.
        consistent: of rows read in both orders, those whose verdict names the same answer both times.
        both_right: of all rows, those right in both orders.
        first: of the verdicts of rows read in both orders, those for the answer shown first; 50 % without bias.
    """
    who, truth, given = rows.cluster, rows.truth, rows.given
    read, right = given >= 0, given == truth

    def of(outcomes: np.ndarray, where: np.ndarray | None = None) -> Measure:
        return share(outcomes, who, confidence) if where is None else share(outcomes[where], who[where], confidence)

    uneven = rows.longer >= 0
    found = {
        "accuracy": of(right),
        "strict_accuracy": of(rows.strict == truth),
        "answered": of(read),
        "strictly_answered": of(rows.strict >= 0),
        "accuracy_answered": of(right, read),
        "longer": of(given == rows.longer, read & uneven),
        "longer_physicians": of(truth == rows.longer, read & uneven),
        "accuracy_longer": of(right, uneven & (truth == rows.longer)),
        "accuracy_shorter": of(right, uneven & (truth != rows.longer)),
        "kappa": Measure(*cohen_kappa(given, truth, who, confidence), int(read.sum())),
    }
    return found | (orders(rows, confidence) if rows.swapped is not None else {})


def orders(rows: Rows, confidence: float = 0.95) -> dict[str, Measure]:
    """The measures that need both orders; see `measures`."""
    who, given, swapped = rows.cluster, rows.given, rows.swapped
    both = (given >= 0) & (swapped >= 0)
    twice = np.concatenate([who, who])
    # A verdict for the second answer names the one shown first when the answers are swapped.
    first = np.concatenate([given[both] == 0, swapped[both] == 1])
    return {
        "accuracy_swapped": share(swapped == rows.truth, who, confidence),
        "accuracy_mean": share(np.concatenate([given == rows.truth, swapped == rows.truth]), twice, confidence),
        "consistent": share((given == swapped)[both], who[both], confidence),
        "both_right": share((given == rows.truth) & (swapped == rows.truth), who, confidence),
        "first": share(first, np.concatenate([who[both], who[both]]), confidence),
    }


def beside(rows: Rows) -> Mapping[str, float]:
    """What heuristics reach on the same rows: the more frequent letter (seen on these rows), the longer answer.

    Of equally long answers the first is taken.
    """
    truth = rows.truth
    return {
        "majority": float(max(np.mean(truth == 0), np.mean(truth == 1))),
        "longer_answer": float(np.mean(np.where(rows.longer < 0, 0, rows.longer) == truth)),
    }
