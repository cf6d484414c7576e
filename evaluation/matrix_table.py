"""The matrix of models by specialties as CSV, for a terminal, and as a figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from evaluation.baselines import Line
from evaluation.kept import KEPT, Kept
from evaluation.report_files import percent
from evaluation.scoring import Row, Score, columns_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE_KEPT: Mapping[str, Kept] = {}
KEPT_NAMES = ("accuracy", "low", "high", "n", "difference", "difference_low", "difference_high")
CAPTION = "accuracy on the base's own questions, difference from the base [95 %], points; in no mean"


def matrix_csv(rows: Sequence[Row], kept: Mapping[str, Kept] = NONE_KEPT) -> str:
    """The matrix as CSV: per specialty accuracy, low, high, n, lenient accuracy as fractions; then the macro mean.

    After these, where the base's own questions were asked, the accuracy on them, and its difference from the base's.

    Args:
        rows: the models.
        kept: as of `evaluation.kept.kept_column`.
    """
    names = ("accuracy", "low", "high", "n", "accuracy_lenient")
    columns = columns_of(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    beside = [f"{KEPT}/{name}" for name in KEPT_NAMES] if kept else []
    head = ["model", *(f"{specialty}/{name}" for specialty in columns for name in names), "macro/accuracy", *beside]
    writer.writerow(head)
    for row in rows:
        values = [
            _number(getattr(row.cells[specialty], name)) if specialty in row.cells else ""
            for specialty in columns
            for name in names
        ]
        values.append("" if row.macro is None else _number(row.macro))
        writer.writerow([row.model, *values, *(_kept_numbers(kept.get(row.model)) if kept else [])])
    return out.getvalue()


def matrix_text(rows: Sequence[Row], below: Sequence[Line] = (), kept: Mapping[str, Kept] = NONE_KEPT) -> str:
    """The matrix for a terminal: accuracy in percent with its 95 % interval, n below each specialty's name.

    Args:
        rows: the models.
        below: what they are to be seen against, as of `evaluation.baselines.lines_below`.
        kept: as of `evaluation.kept.kept_column`.
    """
    heads, lines = shown_matrix(rows, below, kept)
    table = [["model", *(name for name, _ in heads)], ["", *(size for _, size in heads)]]
    table += [[name, *(cell.text for cell in cells)] for name, cells in lines]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in table
    ]
    return "\n".join(line.rstrip() for line in text) + "\n" + (f"{KEPT}: {CAPTION}\n" if kept else "")


def matrix_figure(rows: Sequence[Row], below: Sequence[Line] = (), kept: Mapping[str, Kept] = NONE_KEPT) -> Figure:
    """The matrix as a heat map, accuracy in percent with its 95 % interval; drawn without a display.

    Args:
        rows: the models.
        below: as of `matrix_text`.
        kept: as of `matrix_text`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heads, lines = shown_matrix(rows, below, kept)
    figure = Figure(figsize=(2.4 + 1.7 * len(heads), 1.4 + 0.55 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    values = [[100 * cell.share for cell in cells] for _, cells in lines]
    image = axes.imshow(values, vmin=0, vmax=100, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(heads)), ["\n".join(filter(None, head)) for head in heads])
    axes.set_yticks(range(len(lines)), [name for name, _ in lines])
    for y, (_, cells) in enumerate(lines):
        for x, cell in enumerate(cells):
            colour = "white" if cell.share > 0.6 else "black"
            axes.text(x, y, cell.text.replace(" [", "\n["), ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axes, label="accuracy, %")
    return figure


class MatrixCell(NamedTuple):
    """What is written in a cell, and the accuracy that its colour shows; NaN shows none."""

    text: str
    share: float = math.nan


def shown_matrix(
    rows: Sequence[Row], below: Sequence[Line], kept: Mapping[str, Kept]
) -> tuple[list[tuple[str, str]], list[tuple[str, list[MatrixCell]]]]:
    """(name, size) of the columns, and the lines: of models, then those below, each with its name."""
    columns, last = columns_of(rows), [KEPT] if kept else []
    sizes = [f"n = {next(row.cells[s].n for row in rows if s in row.cells)}" for s in columns]
    heads = list(zip([*columns, "macro", *last], [*sizes, "", *(_kept_size(kept) for _ in last)], strict=True))
    lines = []
    for row in rows:
        found = [row.cells.get(specialty) for specialty in columns]
        cells = [MatrixCell("-") if one is None else MatrixCell(_percent(one), one.accuracy) for one in found]
        cells.append(MatrixCell("-") if row.macro is None else MatrixCell(f"{100 * row.macro:.1f}", row.macro))
        lines.append((row.model, [*cells, *(_kept_cell(kept.get(row.model)) for _ in last)]))
    for line in below:
        cells = [MatrixCell(line.told.get(s, "-"), line.shares.get(s, math.nan)) for s in columns]
        lines.append((line.name, [*cells, MatrixCell(""), *(MatrixCell("") for _ in last)]))
    return heads, lines


def _percent(cell: Score) -> str:
    return f"{100 * cell.accuracy:.1f} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6f}"


def _kept_size(kept: Mapping[str, Kept]) -> str:
    return f"n = {next(iter(kept.values())).score.n}"


def _kept_cell(one: Kept | None) -> MatrixCell:
    if one is None:
        return MatrixCell("-")
    if one.difference is None:
        return MatrixCell(_percent(one.score), one.score.accuracy)
    paired = one.difference
    told = percent(paired.difference, paired.low, paired.high, sign="+")
    return MatrixCell(f"{100 * one.score.accuracy:.1f}, {told}", one.score.accuracy)


def _kept_numbers(one: Kept | None) -> list[str]:
    if one is None:
        return [""] * len(KEPT_NAMES)
    own = [_number(getattr(one.score, name)) for name in KEPT_NAMES[:4]]
    beside = ["difference", "low", "high"]
    return [*own, *("" if one.difference is None else _number(getattr(one.difference, name)) for name in beside)]
