"""Every model against one of them: differences taken seed by seed, and what each seed says."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.bounded import bounded_mean
from evaluation.pairwise import MACRO
from evaluation.report_files import markdown, p_value, signed
from evaluation.seed_means import Part, seed_mean
from evaluation.statistics import mean_interval

OWN = "own questions"
"""The column of the base's own questions."""
CAPTION = (
    "Paired: seed by seed and question by question, and each specialty counts once in the mean. Brackets hold 95 %, "
    "over seeds by Student's quantile, for these questions; of one seed alone by patient, for these very models. "
    "p: t-test over seeds on the first column, not corrected for the rows: a row counts as evidence only where it was "
    "named before the runs. By seed: the first column, in the order of the folders. A dash: not asked of both, or no "
    "interval, because all seeds came out alike."
)


@dataclass(frozen=True)
class Difference:
    """A model minus another, in fractions; NaN where seeds that came out alike give no interval.

    Attributes:
        mean: each specialty counting once.
        low: lower end of its 95 % interval.
        high: upper end.
        p: over seeds; NaN for one seed.
        by_seed: what each seed says.
    """

    mean: float
    low: float
    high: float
    p: float
    by_seed: tuple[float, ...]

    @property
    def interval(self) -> tuple[float, float, float]:
        """(mean, low, high)."""
        return self.mean, self.low, self.high


def difference(first: Sequence[Part], second: Sequence[Part]) -> Difference:
    """Second minus first.

    Args:
        first: specialties, each (S, n) of 1 for right and 0 for wrong, and (n,) patients.
        second: the same seeds and questions in the same order.

    Source: over seeds `evaluation.seed_means.seed_mean`; of one seed `evaluation.bounded.bounded_mean`, and
        `evaluation.statistics.mean_interval` over specialties.
    """
    parts = [(b - a, patients) for (a, patients), (b, _) in zip(first, second, strict=True)]
    by_seed = tuple(np.mean([values.mean(1) for values, _ in parts], axis=0).tolist())
    if len(by_seed) > 1:
        over = seed_mean(parts, bounds=(-1.0, 1.0))
        return Difference(over.mean, over.low, over.high, over.p, by_seed)
    found = [bounded_mean(values[0], patients) for values, patients in parts]
    mean, low, high = mean_interval([one.mean for one in found], [one.interval(0.95) for one in found])
    return Difference(mean, low, high, math.nan, by_seed)


def differences(models: Mapping[str, Mapping[str, Part]], against: str) -> dict[str, dict[str, Difference]]:
    """Model -> column -> difference: the mean over specialties first, then what both were asked.

    Args:
        models: name -> specialty, or `OWN`, -> answers by seed.
        against: the name of the model that is taken off.

    Raises:
        ValueError: there is no such model; names all.
    """
    if against not in models:
        raise ValueError(f"--against {against}: no such model; there are {', '.join(models)}")
    first = models[against]
    found = {}
    for name, second in models.items():
        if name != against:
            own = [column for column in first if column != OWN]
            found[name] = {MACRO: difference([first[c] for c in own], [second[c] for c in own])}
            found[name] |= {c: difference([first[c]], [second[c]]) for c in first if c in second}
    return found


def told_differences(found: Mapping[str, Mapping[str, Difference]], against: str) -> str:
    """The differences in Markdown, with their caption.

    Args:
        found: of `differences`.
        against: what was taken off.
    """
    columns = list(dict.fromkeys(column for row in found.values() for column in row))
    lines = []
    for name, row in found.items():
        cells = [signed(*row[column].interval) if column in row else "-" for column in columns]
        first = row[MACRO]
        seeds = ", ".join(f"{100 * value:+.1f}" for value in first.by_seed)
        lines.append([name, *cells, p_value(first.p), seeds])
    header = [f"minus {against}", *(f"{column}, points" for column in columns), "p", "by seed, points"]
    return f"{markdown(header, lines, names=1)}\n\n{CAPTION}"


def differences_csv(found: Mapping[str, Mapping[str, Difference]], against: str) -> str:
    """Every difference as a fraction, and each seed's; what is not known is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "against", "column", "difference", "low", "high", "p", "by_seed"])
    for name, row in found.items():
        for column, one in row.items():
            numbers = ["" if math.isnan(value) else value for value in (*one.interval, one.p)]
            writer.writerow([name, against, column, *numbers, " ".join(f"{value:.6f}" for value in one.by_seed)])
    return out.getvalue()
