"""Judges against each other on the same cases: paired differences, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from evaluation.paired import paired_difference
from evaluation.pairwise import judged
from evaluation.report_files import Verdict, p_value, percent, points, write_reports
from judging.agreement import cohen_kappa, krippendorff_alpha
from judging.cases import DIMENSIONS
from judging.report import ALL
from judging.sheet import Sheet, rows_of

HEADER = (
    "judge",
    "against",
    "dimension",
    "verdicts",
    "accuracy",
    "other",
    "difference",
    "detectable",
    "p",
    "p Holm",
    "κ",
    "verdict",
)


@dataclass(frozen=True)
class JudgeDifference:
    """One judge against another on one dimension; the names are those that `evaluation.report_files` draws.

    Attributes:
        baseline: the judge that is compared with.
        system: the judge.
        specialty: the dimension, or all six.
        accuracy_a: of the baseline.
        accuracy_b: of the judge.
        difference: accuracy of the judge minus that of the baseline.
        low: of its interval.
        high: of its interval.
        p: of the exact sign-flip test of whole cases.
        detectable: smallest true difference that would be found with 80 %.
        kappa: Cohen's, between the two judges.
        n: verdicts.
        p_holm: corrected for the whole table.
        verdict: what holds.
    """

    baseline: str
    system: str
    specialty: str
    accuracy_a: float
    accuracy_b: float
    difference: float
    low: float
    high: float
    p: float
    detectable: float
    kappa: float
    n: int
    p_holm: float = field(default=float("nan"))
    verdict: Verdict = "no evidence"


def refuse_unlike(sheets: Sequence[Sheet]) -> None:
    """Refuse judges that did not see the same cases.

    Raises:
        ValueError: names the two.
    """
    first = sheets[0]
    for sheet in sheets[1:]:
        for key, what in (("data_sha256", "other cases"), ("mode", "another mode"), ("wording", "other words")):
            if sheet.asked[key] != first.asked[key]:
                raise ValueError(f"{sheet.name!r} was asked with {what} than {first.name!r}; run one of them again")


def differences(sheets: Sequence[Sheet], baseline: str = "", alpha: float = 0.05) -> list[JudgeDifference]:
    """Every pair of judges, or each against one, over all six dimensions together and each by itself.

    Raises:
        ValueError: the judges did not see the same cases, or there is no such baseline.
    """
    refuse_unlike(sheets)
    pairs = list(combinations(sheets, 2))
    if baseline:
        first = next((sheet for sheet in sheets if sheet.name == baseline), None)
        if first is None:
            raise ValueError(f"--baseline {baseline!r} is none of {', '.join(sheet.name for sheet in sheets)}")
        pairs = [(first, sheet) for sheet in sheets if sheet is not first]
    decided = {name for case in sheets[0].cases for name in case.about.truth}
    names = (ALL, *(name for name in DIMENSIONS if name in decided))
    return judged([difference(*pair, name, alpha) for pair in pairs for name in names], alpha)


def difference(first: Sheet, second: Sheet, dimension: str, alpha: float) -> JudgeDifference:
    """The second judge minus the first on one dimension, in the order given, a missing verdict wrong."""
    chosen = DIMENSIONS if dimension == ALL else (dimension,)
    a, b = rows_of(first.cases, chosen), rows_of(second.cases, chosen)
    found = paired_difference(a.given == a.truth, b.given == b.truth, a.cluster, confidence=1 - alpha)
    return JudgeDifference(
        first.name,
        second.name,
        dimension,
        float(np.mean(a.given == a.truth)),
        float(np.mean(b.given == b.truth)),
        found.difference,
        found.low,
        found.high,
        found.p,
        found.detectable,
        cohen_kappa(a.given, b.given)[0],
        found.n,
    )


def alphas(sheets: Sequence[Sheet]) -> str:
    """Krippendorff's alpha per dimension, of the judges and of the judges with the physicians, in one sentence each."""
    told = []
    for name in DIMENSIONS:
        rows = [rows_of(sheet.cases, (name,)) for sheet in sheets]
        raters = [[int(side) if side >= 0 else None for side in held.given] for held in rows]
        human = [int(side) for side in rows[0].truth]
        among, with_human = (krippendorff_alpha(list(zip(*held, strict=True))) for held in (raters, [*raters, human]))
        told.append(f"{name} {among:.2f} ({with_human:.2f})")
    return f"Krippendorff's α among the judges, and with the physicians: {', '.join(told)}."


def cells(row: JudgeDifference) -> tuple[str, ...]:
    """A difference for reading."""
    return (
        row.system,
        row.baseline,
        row.specialty,
        str(row.n),
        f"{100 * row.accuracy_b:.1f}",
        f"{100 * row.accuracy_a:.1f}",
        percent(row.difference, row.low, row.high, "+"),
        points(row.detectable),
        p_value(row.p),
        p_value(row.p_holm),
        f"{row.kappa:.2f}",
        row.verdict,
    )


def compare(sheets: Sequence[Sheet], baseline: str = "", alpha: float = 0.05, out: Path | None = None) -> str:
    """The table of differences as Markdown, and as files where a folder is given; errors as of `differences`."""
    rows = differences(sheets, baseline, alpha)
    caption = (
        f"Accuracy and its paired difference, percent, with {100 * (1 - alpha):g} % intervals and exact sign-flip "
        f"tests, a picture's verdicts going together; p Holm is corrected for all {len(rows)} rows. Order given, a "
        f"missing verdict is wrong. κ is Cohen's between the two judges. {alphas(sheets)}"
    )
    return write_reports(rows, HEADER, list(map(cells, rows)), caption, out)
