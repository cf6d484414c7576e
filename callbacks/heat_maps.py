"""Figures over layers and projections: one heat map, several under one colour scale, lines. Drawn without a display."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from merge.report import mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 4
"""Heat maps in a row."""


def lines(
    values: Mapping[str, Mapping[str, float | None]], layers: Mapping[str, Mapping[str, str]], title: str
) -> Figure:
    """A line per expert over the layers: means over a layer's projections.

    Choice: later lines are thinner, so that those of equal values show one inside the other.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = (3 + 0.25 * len(layers) + 0.06 * max(map(len, values)), max(3.0, 0.8 + 0.17 * len(values)))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawn: list[float] = []
    for i, (name, of) in enumerate(values.items()):
        means = [mean([of[module] for module in modules.values()]) for modules in layers.values()]
        drawn += [value for value in means if value is not None]
        heights = [math.nan if value is None else value for value in means]
        width = 3.5 - 2.5 * i / len(values)
        style = {"linestyle": ("-", "--", "-.", ":")[i % 4], "marker": "osD^v"[i % 5], "markerfacecolor": "none"}
        axes.plot(list(layers), heights, label=name, linewidth=width, markersize=3 + 2 * width, alpha=0.8, **style)
    if spread(drawn):
        axes.set_yscale("log")
    axes.set_title(f"{title}, mean over projections", fontsize=9)
    axes.set_xlabel("layer", fontsize=8)
    axes.tick_params(labelsize=7)
    figure.legend(loc="outside right upper", fontsize=7, handlelength=4)
    return figure


def spread(values: Sequence[float]) -> bool:
    """Whether values ask for a logarithmic scale: all positive, and differing by more than a factor of 10.

    >>> spread([0.1, 2.0]), spread([0.0, 2.0]), spread([])
    (True, False, False)
    """
    return bool(values) and min(values) > 0 and max(values) > 10 * min(values)


def grid(
    rows: Sequence[Sequence[float | None]],
    names: Sequence[str],
    columns: Sequence[str],
    title: str,
    axis: str = "",
    reach: float | None = None,
) -> Figure:
    """Figures as a heat map with their values written in; gaps stay white.

    Args:
        rows: a value per name and column; None is a gap.
        names: of the rows.
        columns: their names.
        title: of the whole, with the unit.
        axis: what the rows are.
        reach: for differences: the scale is symmetric about 0, and ends here or beyond, at the largest value.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = max(1.5 + 0.06 * max(map(len, names)) + 0.9 * len(columns), 0.5 + 0.08 * len(title))
    size = (width, 0.8 + 0.045 * max(map(len, columns)) + 0.35 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    values = [[math.nan if value is None else value for value in row] for row in rows]
    scale: dict[str, Any] = {"cmap": "viridis"}
    if reach is not None:
        end = max([reach, *(abs(value) for row in rows for value in row if value is not None)])
        scale = {"cmap": "RdBu", "vmin": -end, "vmax": end}
    image = axes.imshow(values, aspect="auto", **scale)
    figure.suptitle(title, fontsize=9)
    axes.set_ylabel(axis, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if not math.isnan(value):
                colour = readable_on(image.to_rgba(value))
                axes.text(x, y, f"{value:z.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes).ax.tick_params(labelsize=7)
    return figure


def panels(
    maps: Mapping[str, Sequence[Sequence[float | None]]], names: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    """Heat maps beside each other under one colour scale, so that colours compare; gaps stay white.

    The scale is logarithmic where the values ask for it, as of `spread`.

    Args:
        maps: panel -> a value per layer and column; None is a gap.
        names: of the layers.
        columns: their names.
        title: of the whole, with the unit.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.figure import Figure

    across = min(len(maps), ACROSS)
    down = -(-len(maps) // across)
    size = (2 + across * max(0.2 * len(columns), 0.075 * max(map(len, maps))), 1.3 + down * (0.4 + 0.16 * len(names)))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grids = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
    drawn = [value for rows in maps.values() for row in rows for value in row if value is not None]
    norm = (LogNorm if spread(drawn) else Normalize)(min(drawn), max(drawn))
    for axes, (name, rows) in zip(grids, maps.items(), strict=False):
        values = [[math.nan if value is None else value for value in row] for row in rows]
        image = axes.imshow(values, aspect="auto", cmap="viridis", norm=norm)
        axes.set_title(name, fontsize=7)
    for axes in grids[len(maps) :]:
        axes.set_axis_off()
    grids[0].set_xticks(range(len(columns)), columns)
    grids[0].set_yticks(range(len(names)), names)
    for axes in grids:
        axes.tick_params(labelsize=6)
        axes.tick_params(axis="x", rotation=90)
    figure.suptitle(title, fontsize=9)
    figure.supylabel("layer", fontsize=8)
    figure.colorbar(image, ax=grids).ax.tick_params(labelsize=7)
    return figure


def readable_on(colour: Sequence[float]) -> str:
    """Black on light colours, white on dark ones.

    Args:
        colour: red, green, blue and what follows, 0 to 1.

    Source: luma of ITU-R BT.601.
    """
    red, green, blue = colour[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
