"""The table of two methods over seeds: its rows, its columns and its caption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from evaluation.comparison_report import beside_caption, blind_pair, degrees, one_letter
from evaluation.methods import Method
from evaluation.over_seeds import Part, seed_difference
from evaluation.pairwise import ALL, MACRO, baselines, by_specialty, outcomes, patients_of
from evaluation.report_files import Verdict, p_value, percent, points


@dataclass(frozen=True)
class SeedComparison:
    """One method against its baseline on one specialty, over seeds. Accuracies and differences are fractions.

    Attributes:
        baseline: name of the first method.
        system: name of the second.
        specialty: what was asked.
        seeds_a: of the baseline.
        seeds_b: of the method.
        accuracy_a: mean of the baseline over seeds.
        accuracy_b: mean of the method over seeds.
        majority: what the same answer to every question scores.
        majority_from_training: whether that answer was chosen on training rows.
        blind_a: mean accuracy of the baseline without a picture; NaN where it was not asked so.
        blind_b: the same of the method.
        n: questions.
        p_holm: p corrected for the whole table.
        verdict: what holds at the table's error rate.

    The others are those of `evaluation.over_seeds.SeedDifference`.
    """

    baseline: str
    system: str
    specialty: str
    seeds_a: int
    seeds_b: int
    accuracy_a: float
    accuracy_b: float
    majority: float
    majority_from_training: bool
    blind_a: float
    blind_b: float
    n: int
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
    p_holm: float = math.nan
    verdict: Verdict = "no evidence"


HEADER = ("baseline", "method", "specialty", "n", "patients", "seeds", "baseline, %", "method, %")
HEADER += ("difference, points", "visible, points", "error of seed / patient / item, points", "df", "p", "p (Holm)")
HEADER += ("one letter, %", "no picture, %", "verdict")


def cells(row: SeedComparison) -> tuple[str, ...]:
    """One row of the table for reading, under `HEADER`."""
    return (
        row.baseline,
        row.system,
        row.specialty,
        str(row.n),
        str(row.n_clusters),
        f"{row.seeds_a} / {row.seeds_b}",
        f"{100 * row.accuracy_a:.1f} ± {100 * row.sd_a:.1f}",
        f"{100 * row.accuracy_b:.1f} ± {100 * row.sd_b:.1f}",
        percent(row.difference, row.low, row.high, sign="+"),
        points(row.detectable),
        " / ".join(f"{100 * error:.1f}" for error in (row.se_seed, row.se_patient, row.se_item)),
        f"{row.df:.1f}",
        p_value(row.p),
        p_value(row.p_holm),
        one_letter(row.majority, row.majority_from_training),
        blind_pair(row.blind_a, row.blind_b),
        row.verdict,
    )


def caption(rows: Sequence[SeedComparison], scorer: str, alpha: float, notes: Sequence[str] = ()) -> str:
    """What the table's columns mean; `notes` are sentences about what could not be checked."""
    told = (
        f"Scored by {scorer}. Accuracy: mean ± standard deviation over seeds. Difference: over seeds and patients, "
        "crossed, both taken for samples; standard errors of seed, patient and item apart, whose squares add up. The "
        f"interval covers {100 * (1 - alpha):g} % by Student's t with the fewer degrees of freedom of seeds and "
        f"patients, here {degrees(rows)}; with few seeds it is wide, as it must be. p: t-test, corrected over the "
        f"{len(rows)} rows by Holm. A verdict needs the corrected p below {alpha:g} and an interval without 0. "
        "Visible: the smallest true difference that so many seeds and questions find with 80 % at "
        f"{100 * alpha:g} %. {beside_caption(rows)}"
    )
    return " ".join([told, *notes])


def compare_methods(first: Method, second: Method, *, confidence: float = 0.95) -> list[SeedComparison]:
    """Compare two methods per specialty, over all questions, and by the mean over specialties; p is not corrected yet.

    Args:
        first: the baseline, at least 2 seeds.
        second: what is compared with it, at least 2 seeds.
        confidence: coverage of all intervals, in (0, 1).

    Returns:
        `SeedComparison`s; the two last only where there are several specialties.
    """
    columns = by_specialty(first.runs[0])
    groups = {name: [keys] for name, keys in columns.items()}
    if len(columns) > 1:
        groups |= {ALL: [[key for keys in columns.values() for key in keys]], MACRO: list(columns.values())}
    rows = []
    for name, members in groups.items():
        parts = [_part(first, second, keys) for keys in members]
        sides = (float(np.mean([part[side].mean() for part in parts])) for side in (0, 1))
        shown = [{keys[0][0]: keys} for keys in members] if name != ALL else [columns]
        rows.append(
            SeedComparison(
                first.name,
                second.name,
                name,
                len(first.runs),
                len(second.runs),
                *sides,
                **_beside(first, second, shown),
                n=sum(map(len, members)),
                **seed_difference(parts, confidence).__dict__,
            )
        )
    return rows


def _part(first: Method, second: Method, keys: Sequence[tuple]) -> Part:
    """Answers of both methods to these questions, by seed, and whose they are."""
    sides = [np.stack([outcomes(run.right, keys) for run in method.runs]).astype(float) for method in (first, second)]
    return sides[0], sides[1], patients_of(first.runs[0], keys)


def _beside(first: Method, second: Method, divisions: Sequence[Mapping[str, list[tuple]]]) -> dict[str, float | bool]:
    """The baselines beside the scores: means over seeds, and over the divisions, each of which counts once."""
    found = [
        ([baselines(run, run, columns) for run in first.runs], [baselines(run, run, columns) for run in second.runs])
        for columns in divisions
    ]
    return {
        "majority": fmean(a[0]["majority"] for a, _ in found),
        "majority_from_training": all(a[0]["majority_from_training"] for a, _ in found),
        "blind_a": fmean(run["blind_a"] for a, _ in found for run in a),
        "blind_b": fmean(run["blind_b"] for _, b in found for run in b),
    }
