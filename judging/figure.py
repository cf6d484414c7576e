"""A judge in one figure: accuracy by organ and dimension, and whether place and length decide. Needs no display."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from judging.cases import DIMENSIONS
from judging.measures import share
from judging.sheet import Sheet, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from judging.report import Cell

BINS = 5
"""Of length differences, with as many cases each as can be."""


def figure(sheet: Sheet, found: Sequence[Cell]) -> Figure:
    """Draw a judge's report.

    Args:
        sheet: its verdicts.
        found: its numbers, see `judging.report.cells`.
    """
    organs = sorted({case.about.organ for case in sheet.cases})
    drawn = Figure(figsize=(11, 2.2 + 0.32 * max(7, len(organs))), layout="constrained")
    FigureCanvasAgg(drawn)
    left, right = drawn.subplots(1, 2, width_ratios=(1.2, 1))
    heat(left, organs, found)
    lengths(right, sheet)
    drawn.suptitle(sheet.name.replace("$", r"\$"), fontsize=10)
    return drawn


def heat(axes: Axes, organs: Sequence[str], found: Sequence[Cell]) -> None:
    """Accuracy in percent, organs by dimensions."""
    at = {(c.group, c.dimension): c.found.value for c in found if c.kind == "organ" and c.measure == "accuracy"}
    values = 100 * np.array([[at[organ, name] for name in DIMENSIONS] for organ in organs])
    axes.imshow(values, vmin=0, vmax=100, cmap="RdYlGn", aspect="auto")
    for (y, x), value in np.ndenumerate(values):
        axes.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(DIMENSIONS)), DIMENSIONS, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(organs)), [organ.replace("_", " ") for organ in organs], fontsize=8)
    axes.set_title("right verdicts, percent", fontsize=9)


def lengths(axes: Axes, sheet: Sheet) -> None:
    """Share of verdicts for the first answer against how much longer it is, the judge's and the physicians'."""
    rows = rows_of(sheet.cases)
    read = rows.given >= 0
    edges = np.unique(np.quantile(rows.difference, np.linspace(0, 1, BINS + 1)))
    of = np.clip(np.searchsorted(edges, rows.difference, side="right") - 1, 0, max(0, len(edges) - 2))
    for label, side, colour, shift in (
        ("physicians", rows.truth, "black", -0.06),
        ("judge", rows.given, "tab:blue", 0.06),
    ):
        points = []
        for place in range(max(1, len(edges) - 1)):
            where = (of == place) & read
            one = share(side[where] == 0, rows.cluster[where])
            if one.n:
                points.append(
                    (place + shift, 100 * one.value, 100 * (one.value - one.low), 100 * (one.high - one.value))
                )
        if points:
            x, y, below, above = zip(*points, strict=True)
            axes.errorbar(x, y, yerr=(below, above), fmt="o-", color=colour, label=label, markersize=4, linewidth=1)
    names = [f"{low:.0f} to {high:.0f}" for low, high in pairwise(edges)] or [f"{edges[0]:.0f}"]
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    axes.axhline(50, color="grey", linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 100)
    axes.set_xlabel("characters of the first answer minus those of the second", fontsize=8)
    axes.set_title("verdicts for the first answer, percent", fontsize=9)
    if axes.containers:
        axes.legend(fontsize=8)
