"""Figures over layers and projections: heat maps beside each other, lines. Drawn without a display."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from merge.report import mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Sequence[float | None]]
ACROSS = 5
"""Heat maps in a row."""


def lines(
    quantities: Mapping[str, Mapping[str, Mapping[str, float | None]]], layers: Mapping[str, Mapping[str, str]]
) -> Figure:
    """A plot per quantity, in it a line per expert over the layers: means over a layer's projections.

    Choice: later lines are thinner, so that those of equal values show one inside the other.

    Args:
        quantities: what is drawn -> expert -> module -> value; of each the same experts, or fewer.
        layers: layer -> projection -> module.
    """
    experts = list(dict.fromkeys(name for of in quantities.values() for name in of))
    size = (
        1.5 + len(quantities) * (1.2 + 0.16 * len(layers)) + 0.06 * max(map(len, experts)),
        max(3.0, 0.8 + 0.17 * len(experts)),
    )
    figure = paper(size)
    plots = figure.subplots(1, len(quantities), squeeze=False)[0]
    for axes, (quantity, values) in zip(plots, quantities.items(), strict=True):
        drawn: list[float] = []
        for name, of in values.items():
            i = experts.index(name)
            means = [mean([of[module] for module in modules.values()]) for modules in layers.values()]
            drawn += [value for value in means if value is not None]
            heights = [math.nan if value is None else value for value in means]
            width = 3.5 - 2.5 * i / len(experts)
            style = {"linestyle": ("-", "--", "-.", ":")[i % 4], "marker": "osD^v"[i % 5], "color": f"C{i}"}
            style |= {"markerfacecolor": "none", "linewidth": width, "markersize": 3 + 2 * width, "alpha": 0.8}
            axes.plot(list(layers), heights, label=name, **style)
        if spread(drawn):
            axes.set_yscale("log")
        axes.set_title(quantity, fontsize=8)
        axes.tick_params(labelsize=7)
    figure.suptitle("by layer, mean over projections", fontsize=9)
    figure.supxlabel("layer", fontsize=8)
    handles = {line.get_label(): line for axes in plots for line in axes.lines}
    figure.legend([handles[name] for name in experts], experts, loc="outside right upper", fontsize=7, handlelength=4)
    return figure


def paper(size: tuple[float, float]) -> Figure:
    """An empty figure that is drawn without a display; its width and height in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def spread(values: Sequence[float]) -> bool:
    """Whether values ask for a logarithmic scale: all positive, and differing by more than a factor of 10.

    >>> spread([0.1, 2.0]), spread([0.0, 2.0]), spread([])
    (True, False, False)
    """
    return bool(values) and min(values) > 0 and max(values) > 10 * min(values)


def grids(
    maps: Mapping[str, Rows], names: Sequence[str], columns: Sequence[str], title: str, reach: float | None = None
) -> Figure:
    """Heat maps beside each other, each with a colour scale of its own and its values written in; gaps stay white.

    Args:
        maps: panel -> a value per name and column; None is a gap.
        names: of the rows.
        columns: their names.
        title: of the whole, with the unit.
        reach: for differences: scales are symmetric about 0, and end here or beyond, at a panel's largest value.
    """
    wide = max(0.42 * len(columns), 0.075 * max(map(len, maps)))
    figure, plots = beside(maps, names, columns, title, wide, 0.3)
    for axes, rows in zip(plots, maps.values(), strict=True):
        scale: dict[str, Any] = {"cmap": "viridis"}
        if reach is not None:
            end = max([reach, *(abs(value) for row in rows for value in row if value is not None)])
            scale = {"cmap": "RdBu", "vmin": -end, "vmax": end}
        image = axes.imshow(with_gaps(rows), aspect="auto", **scale)
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                if value is not None:
                    colour = readable_on(image.to_rgba(value))
                    axes.text(x, y, f"{value:z.2f}", ha="center", va="center", fontsize=7, color=colour)
    return figure


def panels(maps: Mapping[str, Rows], names: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    """Heat maps beside each other under one colour scale, so that colours compare; gaps stay white.

    The scale is logarithmic where the values ask for it, as of `spread`.

    Args:
        maps: panel -> a value per name and column; None is a gap.
        names: of the rows.
        columns: their names.
        title: of the whole, with the unit.
    """
    from matplotlib.colors import LogNorm, Normalize

    wide = max(0.2 * len(columns), 0.075 * max(map(len, maps)))
    figure, plots = beside(maps, names, columns, title, wide, 0.16)
    drawn = [value for rows in maps.values() for row in rows for value in row if value is not None]
    norm = (LogNorm if spread(drawn) else Normalize)(min(drawn), max(drawn))
    for axes, rows in zip(plots, maps.values(), strict=True):
        image = axes.imshow(with_gaps(rows), aspect="auto", cmap="viridis", norm=norm)
    figure.colorbar(image, ax=plots).ax.tick_params(labelsize=7)
    return figure


def beside(
    maps: Mapping[str, Rows], names: Sequence[str], columns: Sequence[str], title: str, wide: float, high: float
) -> tuple[Figure, list[Axes]]:
    """A figure with an empty plot for each map, all of the same rows and columns.

    Args:
        maps: as of `grids`.
        names: of the rows.
        columns: their names.
        title: of the whole.
        wide: inches of a plot.
        high: inches of a row.
    """
    across = min(len(maps), ACROSS)
    down = -(-len(maps) // across)
    labels = 0.06 * max(map(len, names)), 0.05 * max(map(len, columns))
    width = max(1 + labels[0] + across * (0.1 + wide), 0.5 + 0.08 * len(title))
    figure = paper((width, 0.8 + labels[1] + down * (0.35 + high * len(names))))
    plots = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
    for axes in plots[len(maps) :]:
        axes.set_axis_off()
    plots[0].set_xticks(range(len(columns)), columns)
    plots[0].set_yticks(range(len(names)), names)
    for axes, name in zip(plots, maps, strict=False):
        axes.set_title(name, fontsize=7)
        axes.tick_params(labelsize=6)
        axes.tick_params(axis="x", rotation=90)
    figure.suptitle(title, fontsize=9)
    return figure, list(plots[: len(maps)])


def with_gaps(rows: Rows) -> list[list[float]]:
    """Values to draw; NaN where there is none."""
    return [[math.nan if value is None else value for value in row] for row in rows]


def readable_on(colour: Sequence[float]) -> str:
    """Black on light colours, white on dark ones.

    Args:
        colour: red, green, blue and what follows, 0 to 1.

    Source: luma of ITU-R BT.601.
    """
    red, green, blue = colour[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
