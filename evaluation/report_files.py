"""Tables for reading in Markdown; a table of differences also as CSV, LaTeX and a figure."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Verdict = Literal["better", "worse", "no evidence"]


@dataclass(frozen=True)
class Table:
    """A table for reading, before it is Markdown or a page.

    Attributes:
        header: the columns' names.
        rows: cells for reading, as many as the header has.
        caption: what the columns mean.
        names: how many of the first columns hold names, in which Markdown must not act.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    names: int = 0

    @property
    def markdown(self) -> str:
        """The table, and its caption below."""
        return markdown(self.header, self.rows, self.names) + (f"\n\n{self.caption}" if self.caption else "")


class Judged(Protocol):
    """A dataclass whose rows can be drawn: who, on what, by how much, and what holds."""

    baseline: str
    system: str
    specialty: str
    difference: float
    low: float
    high: float
    n: int
    verdict: Verdict


def write_reports(
    rows: Sequence[Judged], header: Sequence[str], lines: Sequence[Sequence[str]], caption: str, out: Path | None
) -> str:
    """Write compare.md, compare.csv, compare.tex and compare.png into a folder, if one is given.

    Args:
        rows: at least one, each of the same dataclass.
        header: names of the columns for reading.
        lines: the rows for reading, as long as the header.
        caption: what the columns mean.
        out: the folder.

    Returns:
        The Markdown.
    """
    text = f"{markdown(header, lines)}\n\n{caption}"
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "compare.md").write_text(text + "\n", encoding="utf-8")
        (out / "compare.csv").write_text(as_csv(rows), encoding="utf-8")
        (out / "compare.tex").write_text(latex(header, lines, caption), encoding="utf-8")
        figure(rows).savefig(out / "compare.png", dpi=150)
    return text


def percent(value: float, low: float, high: float, sign: str = "") -> str:
    """A fraction with its interval, in percent."""
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def signed(value: float, low: float, high: float) -> str:
    """A difference in points with its interval; alone where it has none, which is NaN."""
    return f"{100 * value:+.1f}" if math.isnan(low) else percent(value, low, high, sign="+")


def p_value(p: float) -> str:
    """A p-value for reading: two digits, a bound below 0.0001, a dash if there is none."""
    return "-" if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def points(difference: float) -> str:
    """A smallest difference for reading, in points; "none" where not even a hundred could be seen."""
    return f"{100 * difference:.1f}" if math.isfinite(difference) else "none"


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]], names: int = 3) -> str:
    """A table in Markdown; its first columns hold names, which are made harmless."""
    shown = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for line in lines:
        escaped = [re.sub(r"([\\|`*_<>\[\]])" if i < names else r"(\|)", r"\\\1", cell) for i, cell in enumerate(line)]
        shown.append("| " + " | ".join(" ".join(cell.split()) for cell in escaped) + " |")
    return "\n".join(shown)


def as_csv(rows: Sequence[Judged]) -> str:
    """Every number of a table in full, as fractions; intervals in two columns each."""
    names = [field.name for field in fields(rows[0])]
    wide = {"interval_a": ("low_a", "high_a"), "interval_b": ("low_b", "high_b")}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column for name in names for column in wide.get(name, (name,))])
    for row in rows:
        values = [getattr(row, name) for name in names]
        writer.writerow([part for value in values for part in (value if isinstance(value, tuple) else (value,))])
    return out.getvalue()


def latex(header: Sequence[str], lines: Sequence[Sequence[str]], caption: str) -> str:
    r"""A table for a paper; needs \usepackage{booktabs}."""
    columns = "lll" + "r" * (len(header) - 4) + "l"
    shown = [r"\begin{table}", r"\centering\small", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    shown.append(" & ".join(map(tex, header)) + r" \\ \midrule")
    shown += [" & ".join(map(tex, line)) + r" \\" for line in lines]
    shown += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{tex(caption)}}}", r"\end{table}", ""]
    return "\n".join(shown)


def tex(text: str) -> str:
    """Text with LaTeX's special characters made harmless."""
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
    named |= {
        "≤": r"$\leq$",
        "±": r"$\pm$",
        "[": "{[}",
        "]": "{]}",
    }  # a bracket after a line end would be read as its argument
    return re.sub(
        r"[\\~^<>≤±\[\]&%$#_{}]", lambda match: named.get(match.group(), "\\" + match.group()), " ".join(text.split())
    )


def figure(rows: Sequence[Judged]) -> Figure:
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
