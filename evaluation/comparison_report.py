"""The table of two systems on the same questions: its rows, its columns and its caption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.baselines import SETTING
from evaluation.report_files import Verdict, p_value, percent, points


@dataclass(frozen=True)
class Comparison:
    """One system against its baseline on one specialty. Accuracies and differences are fractions.

    Attributes:
        baseline: name of the first system.
        system: name of the second.
        specialty: what was asked.
        accuracy_a: of the baseline.
        accuracy_b: of the system.
        interval_a: Wilson's, at the effective number of questions.
        interval_b: the same for the system.
        difference: accuracy_b - accuracy_a.
        low: lower end of its interval by patient.
        high: upper end.
        only_a: b, questions that only the baseline answers right.
        only_b: c, questions that only the system answers right.
        p_mcnemar: exact McNemar test, questions taken for independent.
        p: exact sign-flip test by patient; never 0.
        detectable: smallest true difference that a test of these questions alone finds with 80 %; infinite if none.
        df: degrees of freedom of the difference's interval, the fewest of those that went into it.
        n: questions.
        n_clusters: patients.
        majority: what the same answer to every question scores.
        majority_from_training: whether that answer was chosen on training rows; else `majority` is an upper bound.
        blind_a: accuracy of the baseline without a picture; NaN where it was not asked so.
        blind_b: the same of the system.
        p_holm: p corrected for the whole table.
        verdict: what holds at the table's error rate.
    """

    baseline: str
    system: str
    specialty: str
    accuracy_a: float
    accuracy_b: float
    interval_a: tuple[float, float]
    interval_b: tuple[float, float]
    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p_mcnemar: float
    p: float
    detectable: float
    df: float
    n: int
    n_clusters: int
    majority: float
    majority_from_training: bool
    blind_a: float
    blind_b: float
    p_holm: float = math.nan
    verdict: Verdict = "no evidence"


HEADER = ("baseline", "system", "specialty", "n", "patients", "baseline, %", "system, %", "difference, points")
HEADER += ("visible, points", "b / c", "p (McNemar)", "p (by patient)", "p (Holm)", "one letter, %", "no picture, %")
HEADER += ("verdict",)


def cells(row: Comparison) -> tuple[str, ...]:
    """One row of the table for reading, under `HEADER`."""
    return (
        row.baseline,
        row.system,
        row.specialty,
        str(row.n),
        str(row.n_clusters),
        percent(row.accuracy_a, *row.interval_a),
        percent(row.accuracy_b, *row.interval_b),
        percent(row.difference, row.low, row.high, sign="+"),
        points(row.detectable),
        f"{row.only_a} / {row.only_b}",
        p_value(row.p_mcnemar),
        p_value(row.p),
        p_value(row.p_holm),
        one_letter(row.majority, row.majority_from_training),
        blind_pair(row.blind_a, row.blind_b),
        row.verdict,
    )


def one_letter(share: float, from_training: bool) -> str:
    """What one answer to every question scores; an upper bound where it was chosen on these questions."""
    return f"{'' if from_training else '≤ '}{100 * share:.1f}"


def blind_pair(first: float, second: float) -> str:
    """Scores of both systems without a picture."""
    told = ["not measured" if math.isnan(share) else f"{100 * share:.1f}" for share in (first, second)]
    return told[0] if told == ["not measured"] * 2 else " / ".join(told)


def caption(rows: Sequence[Comparison], scorer: str, alpha: float, alike: int = 0) -> str:
    """What the table's columns mean.

    Args:
        rows: of the table.
        scorer: by which name answers were scored.
        alpha: family-wise error rate.
        alike: pairs of systems that are not among the rows, since they gave the very same completions.
    """
    told = (
        f"Scored by {scorer}. Intervals cover {100 * (1 - alpha):g} %: accuracy by Wilson at the effective number of "
        "questions, difference by Bonett and Price at that number; Student's quantiles, here with "
        f"{degrees(rows)} degrees of freedom. p: exact McNemar; exact sign-flip test by patient, over specialties too; "
        f"the latter corrected over the {len(rows)} rows by Holm. A verdict needs the corrected p below {alpha:g} and "
        "an interval without 0. Visible: the smallest true difference that a test of these questions alone finds with "
        f"80 % at {100 * alpha:g} %. {beside_caption(rows)}"
    )
    if alike:
        told += f" {alike} further pair{'s' * (alike > 1)} of systems gave the very same completions: left out."
    return told


def beside_caption(rows) -> str:
    """What the two baselines beside the scores mean."""
    told = "One letter: the commonest right answer of the training rows for every question"
    if not all(row.majority_from_training for row in rows):
        told += "; with ≤ that of the questions themselves, an upper bound, as training rows are not known"
    told += "."
    if any(math.isnan(row.blind_a + row.blind_b) for row in rows):
        told += f" No picture is measured by {SETTING}."
    return told


def degrees(rows) -> str:
    """The range of the degrees of freedom."""
    low, high = min(row.df for row in rows), max(row.df for row in rows)
    return f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"
