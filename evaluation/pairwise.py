"""Two systems on the same questions: per specialty, over all questions, and by the mean over specialties."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TypeVar

import numpy as np

from evaluation.baselines import majority
from evaluation.clustered import cluster_index, clustered_wilson
from evaluation.comparison_report import Comparison
from evaluation.detectable import smallest_difference
from evaluation.paired import PairedDifference, paired_difference
from evaluation.report_files import Verdict
from evaluation.sign_flip import macro_sign_flip_p
from evaluation.statistics import holm, mean_interval
from evaluation.systems import System

Row = TypeVar("Row")
"""A row of a table: a dataclass with p, low, high, p_holm and verdict."""
ALL, MACRO = "all questions", "mean over specialties"


def compare_pair(first: System, second: System, *, confidence: float = 0.95) -> list[Comparison]:
    """Compare two systems per specialty, over all questions, and by the mean over specialties; p is not corrected yet.

    Args:
        first: the baseline.
        second: what is compared with it.
        confidence: coverage of all intervals, in (0, 1).

    Returns:
        `Comparison`s; the two last only where there are several specialties.
    """
    columns = by_specialty(first)
    parts = columns if len(columns) == 1 else {**columns, ALL: list(first.items)}
    rows, found, tested = [], [], []
    for name, keys in parts.items():
        right = [outcomes(system.right, keys) for system in (first, second)]
        patients = patients_of(first, keys)
        one = paired_difference(*right, patients, confidence=confidence)
        bounds = [clustered_wilson(side, patients, confidence) for side in right]
        means = [float(side.mean()) for side in right]
        measured = {field: getattr(one, field) for field in KEPT}
        beside = baselines(first, second, {name: keys} if name != ALL else columns)
        rows.append(Comparison(first.name, second.name, name, *means, *bounds, **measured, **beside))
        if name != ALL:
            found.append(one)
            tested.append((right[1] - right[0], patients))
    if len(columns) > 1:
        rows.append(macro(rows[:-1], rows[-1], found, macro_sign_flip_p(tested), 1 - confidence))
    return rows


KEPT = ("difference", "low", "high", "only_a", "only_b", "p_mcnemar", "p", "detectable", "df", "n", "n_clusters")
"""What a row of the table has from a paired difference."""


def by_specialty(system: System) -> dict[str, list[tuple]]:
    """Specialty -> the keys of its answers, in order."""
    columns: dict[str, list[tuple]] = {}
    for key in system.items:
        columns.setdefault(key[0], []).append(key)
    return columns


def outcomes(right: Mapping[tuple, bool], keys: Sequence[tuple]) -> np.ndarray:
    """(n,) int64: 1 where right."""
    return np.fromiter((right[key] for key in keys), dtype=np.int64, count=len(keys))


def patients_of(system: System, keys: Sequence[tuple]) -> np.ndarray:
    """(n,) int: the number of each answer's patient; a patient of two specialties counts as two."""
    return cluster_index([(key[0], system.items[key].patient_id) for key in keys])


def baselines(first: System, second: System, columns: Mapping[str, Sequence[tuple]]) -> dict[str, float | bool]:
    """What stands beside the scores, over all questions of the columns: one letter, and either system's blind score."""
    count = sum(map(len, columns.values()))
    found = [
        (len(keys), majority([first.items[key] for key in keys], first.training.get(name)))
        for name, keys in columns.items()
    ]
    blind = [
        sum(system.blind[key] for keys in columns.values() for key in keys) / count if system.blind else math.nan
        for system in (first, second)
    ]
    return {
        "majority": sum(size * one.share for size, one in found) / count,
        "majority_from_training": all(one.from_training for _, one in found),
        "blind_a": blind[0],
        "blind_b": blind[1],
    }


def macro(
    rows: Sequence[Comparison], pooled: Comparison, found: Sequence[PairedDifference], p: float, alpha: float
) -> Comparison:
    """The row in which each specialty counts once: intervals from those of the specialties, p from its own exact test.

    Its smallest difference is that of as many independent questions as give the mean its variance:
    n = ψ̄ K² / Σ_k (ψ_k / n_k).
    """
    a, *bounds_a = mean_interval([row.accuracy_a for row in rows], [row.interval_a for row in rows])
    b, *bounds_b = mean_interval([row.accuracy_b for row in rows], [row.interval_b for row in rows])
    difference, low, high = mean_interval([row.difference for row in rows], [(row.low, row.high) for row in rows])
    disagreement = fmean(one.disagreement for one in found)
    variances = sum(one.disagreement / one.n_effective for one in found)
    return replace(
        pooled,
        specialty=MACRO,
        accuracy_a=a,
        accuracy_b=b,
        interval_a=tuple(bounds_a),
        interval_b=tuple(bounds_b),
        difference=difference,
        low=low,
        high=high,
        p_mcnemar=math.nan,
        p=p,
        detectable=smallest_difference(disagreement * len(found) ** 2 / variances, disagreement, alpha=alpha),
        df=min(one.df for one in found),
        majority=fmean(row.majority for row in rows),
        blind_a=fmean(row.blind_a for row in rows),
        blind_b=fmean(row.blind_b for row in rows),
    )


def judged(rows: Sequence[Row], alpha: float = 0.05) -> list[Row]:
    """Correct the p-values of a whole table by Holm's method and say what holds.

    "better" and "worse" need both: a corrected p below alpha and an interval without 0.
    """
    corrected = holm([row.p for row in rows])
    return [
        replace(row, p_holm=p, verdict=verdict(p, row.low, row.high, alpha))
        for row, p in zip(rows, corrected, strict=True)
    ]


def verdict(p: float, low: float, high: float, alpha: float) -> Verdict:
    """What a corrected p and an interval say together."""
    if p < alpha and low > 0:
        return "better"
    return "worse" if p < alpha and high < 0 else "no evidence"
