"""A sweep's report as a picture: every arm and every contrast, their seeds as dots, their intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.report.labels import COLOURS, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Plain = Mapping[str, Any]
FIXED, EXPLORED, BENEATH = COLOURS[1], COLOURS[0], "tab:gray"


class Line(NamedTuple):
    """One line of a plot; all numbers are fractions.

    Attributes:
        name: what it is about.
        one: mean, low and high, as of `evaluation.seed_means.SeedMean`.
        seeds: the same of each seed; none where they are not told.
        colour: of its marks.
    """

    name: str
    one: Plain
    seeds: Sequence[float]
    colour: str


def figure(content: Plain) -> Figure:
    """Arms on the left, contrasts on the right, in the column that counts; drawn without a display.

    Args:
        content: as of `experiment.sweep.report.content_of`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms, contrasts = arm_lines(content), contrast_lines(content)
    column = next(iter(content["primary"]["figures"]))
    drawn = Figure(figsize=(11, 1.7 + 0.32 * max(len(arms), len(contrasts))), layout="constrained")
    FigureCanvasAgg(drawn)
    left, right = drawn.subplots(1, 2)
    draw(left, arms, "right, %")
    draw(right, contrasts, "difference, points")
    right.axvline(0, color="black", linewidth=0.8, zorder=0)
    for colour, what in ((FIXED, "fixed beforehand"), (EXPLORED, "explored, not corrected")):
        right.plot([], [], "o-", color=colour, label=what, markersize=5)
    drawn.legend(loc="outside lower right", ncols=2, fontsize=8, frameon=False)
    cover = f"{100 * content['fixed']['primary']['confidence']:g} %"
    drawn.suptitle(
        f"{label(content['name'])}: {label(column)}; small dots: seeds; lines: {cover} over seeds", fontsize=9
    )
    return drawn


def arm_lines(content: Plain) -> list[Line]:
    """What all arms stand on, and each arm."""
    own: dict[str, dict[int, list[float]]] = {}
    for row in content["by_seed"]:
        own.setdefault(row["arm"], {}).setdefault(row["seed"], []).append(row["accuracy"])
    beneath = [Line(name, first(columns), (), BENEATH) for name, columns in content["beneath"].items()]
    asked = (content["primary"]["arm"], content["primary"]["against"])
    return beneath + [
        Line(name, first(columns), [fmean(each) for each in own[name].values()], FIXED if name in asked else EXPLORED)
        for name, columns in content["arms"].items()
    ]


def contrast_lines(content: Plain) -> list[Line]:
    """The contrast that was fixed, and below it the explored ones."""
    found = [(content["primary"], FIXED), *((one, EXPLORED) for one in content["exploratory"])]
    return [
        Line(f"{one['arm']} - {one['against']}", first(one["figures"]), list(one["by_seed"].values()), colour)
        for one, colour in found
    ]


def first(columns: Plain) -> Plain:
    """The column that counts."""
    return next(iter(columns.values()))


def draw(axes: Axes, lines: Sequence[Line], unit: str) -> None:
    """One line below the other."""
    for y, line in enumerate(lines):
        axes.plot([100 * value for value in line.seeds], [y] * len(line.seeds), ".", color=line.colour, alpha=0.45)
        ends = line.one["low"], line.one["high"]
        if not any(map(math.isnan, ends)):  # all seeds came out alike
            axes.plot([100 * end for end in ends], [y, y], color=line.colour, linewidth=2)
        axes.plot([100 * line.one["mean"]], [y], "o", color=line.colour, markersize=6)
    axes.set_yticks(range(len(lines)), [label(line.name) for line in lines], fontsize=8)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
