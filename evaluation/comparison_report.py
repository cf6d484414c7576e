"""A table of comparisons as Markdown, CSV, LaTeX and a figure."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Verdict = Literal["better", "worse", "no evidence"]


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
        low: lower end of its bootstrap interval by patient.
        high: upper end.
        only_a: b, questions that only the baseline answers right.
        only_b: c, questions that only the system answers right.
        p_mcnemar: exact McNemar test, questions taken for independent.
        p: exact sign-flip test by patient; of the mean over specialties, a z-test.
        se: standard error of the difference, clustered.
        n: questions.
        n_clusters: patients.
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
    se: float
    n: int
    n_clusters: int
    p_holm: float = math.nan
    verdict: Verdict = "no evidence"


HEADER = ("baseline", "system", "specialty", "n", "patients", "baseline, %", "system, %", "difference, points")
HEADER += ("b / c", "p (McNemar)", "p (by patient)", "p (Holm)", "verdict")


def write_reports(rows: Sequence[Comparison], out: Path | None, scorer: str, alpha: float, alike: int = 0) -> str:
    """Write compare.md, compare.csv, compare.tex and compare.png into a folder, if one is given.

    Args:
        rows: at least one.
        out: the folder.
        scorer: by which name answers were scored.
        alpha: family-wise error rate.
        alike: pairs of systems that are not among the rows, since they gave the very same completions.

    Returns:
        The Markdown.
    """
    caption = (
        f"Scored by {scorer}. Intervals cover {100 * (1 - alpha):g} %: accuracy by Wilson at the effective number of "
        "questions, difference by a paired bootstrap of patients. p: exact McNemar; exact sign-flip test by patient; "
        f"the latter corrected over the {len(rows)} rows by Holm. A verdict needs the corrected p below {alpha:g} and "
        "an interval without 0."
    )
    if alike:
        caption += f" {alike} further pair{'s' * (alike > 1)} of systems gave the very same completions: left out."
    text = f"{markdown(rows)}\n\n{caption}"
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "compare.md").write_text(text + "\n", encoding="utf-8")
        (out / "compare.csv").write_text(as_csv(rows), encoding="utf-8")
        (out / "compare.tex").write_text(latex(rows, caption), encoding="utf-8")
        figure(rows).savefig(out / "compare.png", dpi=150)
    return text


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
        f"{row.only_a} / {row.only_b}",
        p_value(row.p_mcnemar),
        p_value(row.p),
        p_value(row.p_holm),
        row.verdict,
    )


def percent(value: float, low: float, high: float, sign: str = "") -> str:
    """A fraction with its interval, in percent."""
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def p_value(p: float) -> str:
    """A p-value for reading: two digits, a bound below 0.0001, a dash if there is none."""
    return "-" if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def markdown(rows: Sequence[Comparison]) -> str:
    """The table in Markdown."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---" * len(HEADER) + "|"]
    for row in rows:
        escaped = [re.sub(r"([\\|`*_<>\[\]])", r"\\\1", cell) if i < 3 else cell for i, cell in enumerate(cells(row))]
        lines.append("| " + " | ".join(" ".join(cell.split()) for cell in escaped) + " |")
    return "\n".join(lines)


def as_csv(rows: Sequence[Comparison]) -> str:
    """Every number of the table in full, as fractions; intervals in two columns each."""
    names = [field.name for field in fields(Comparison)]
    wide = {"interval_a": ("low_a", "high_a"), "interval_b": ("low_b", "high_b")}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column for name in names for column in wide.get(name, (name,))])
    for row in rows:
        values = [getattr(row, name) for name in names]
        writer.writerow([part for value in values for part in (value if isinstance(value, tuple) else (value,))])
    return out.getvalue()


def latex(rows: Sequence[Comparison], caption: str) -> str:
    r"""The table for a paper; needs \usepackage{booktabs}."""
    columns = "lllrrrrrrrrrl"
    lines = [r"\begin{table}", r"\centering\small", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines.append(" & ".join(map(tex, HEADER)) + r" \\ \midrule")
    lines += [" & ".join(map(tex, cells(row))) + r" \\" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{tex(caption)}}}", r"\end{table}", ""]
    return "\n".join(lines)


def tex(text: str) -> str:
    """Text with LaTeX's special characters made harmless."""
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
    named |= {"[": "{[}", "]": "{]}"}  # a bracket after a line end would be read as its argument
    return re.sub(
        r"[\\~^<>\[\]&%$#_{}]", lambda match: named.get(match.group(), "\\" + match.group()), " ".join(text.split())
    )


def figure(rows: Sequence[Comparison]) -> Figure:
    """Differences with their intervals, one line each, verdicts by colour; drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [f"{row.system} - {row.baseline}, {row.specialty} (n = {row.n})" for row in rows]
    drawn = Figure(figsize=(5 + 0.065 * max(map(len, names)), 1.1 + 0.25 * len(rows)), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    colours = {"better": "tab:green", "worse": "tab:red", "no evidence": "tab:gray"}
    for y, row in enumerate(rows):
        colour = colours[row.verdict]
        axes.plot([100 * row.low, 100 * row.high], [y, y], color=colour, linewidth=2)
        axes.plot([100 * row.difference], [y], "o", color=colour)
    for verdict, colour in colours.items():
        axes.plot([], [], "o-", color=colour, label=verdict)
    drawn.legend(loc="outside upper right", ncols=len(colours), fontsize=8)
    axes.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name in names], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("difference in accuracy, points")
    return drawn
