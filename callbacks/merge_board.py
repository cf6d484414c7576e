"""A merge on TensorBoard: heat maps over layers and projections, matrices between experts, scalars per expert."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callbacks.board_files import board, board_stands
from merge.report import mean, to_json
from merge.run import REJECTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYER = re.compile(r"(?P<before>.*?)\.(?P<layer>\d+)\.(?P<projection>.+)")
"""A module's name: where its stack of layers stands, the layer's number, the projection."""

HEAT_MAPS = {
    "sign_conflict": "sign conflict, mean over pairs",
    "sign_conflict_excess": "sign conflict above chance, mean over pairs",
    "mass_conflict": "share of mass that cancels",
    "norm_over_largest_expert": "norm of the merged update over the largest expert's",
    "retained_energy": "energy kept at the rank written",
}
MATRICES = {"cosine": "cosine", "overlap_inputs": "overlap of inputs", "overlap_outputs": "overlap of outputs"}
PER_EXPERT = ("norm", "retention", "interference", "survival")


def write_board(folder: Path, report: Mapping[str, Any]) -> None:
    """Write a report's figures and scalars as one event file, unless they stand there; an earlier merge's make room.

    Args:
        folder: of the merged agent.
        report: see `merge.report.conflict_report`.

    Raises:
        DamagedError: the board that stands there is not as it was written.
    """
    made_from = hashlib.sha256(to_json(report).encode()).hexdigest()
    if board_stands(folder, made_from):
        return
    with board(folder, made_from) as writer:
        for key in PER_EXPERT:
            for name in report["names"]:
                if (value := report["experts"][name][key]) is not None:
                    writer.add_scalar(f"weights/{key}/{name}", value, 0)
        writer.add_scalar("weights/retained_energy", report["merged"]["retained_energy"], 0)
        for key, title in MATRICES.items():
            writer.add_figure(f"weights/{key}", grid(report[key], report["names"], report["names"], title))
        layers, projections = places(report["modules"])
        maps = {key: (title, {n: f[key] for n, f in report["modules"].items()}) for key, title in HEAT_MAPS.items()}
        for key in PER_EXPERT:
            of = {n: {m: found[key][n] for m, found in report["modules"].items()} for n in report["names"]}
            of = {name: values for name, values in of.items() if any(v is not None for v in values.values())}
            maps |= {f"{key}/{name}": (f"{key} of {name}", values) for name, values in of.items()}
            if of:
                writer.add_figure(f"weights/layers/{key}", lines(of, layers, key))
        for key, (title, values) in maps.items():
            rows = [[values.get(layers[layer].get(projection, "")) for projection in projections] for layer in layers]
            writer.add_figure(f"weights/modules/{key}", grid(rows, list(layers), projections, title, "layer"))
        writer.add_text("weights/verdict", verdict(report, rejected=folder.name == REJECTED), 0)


def verdict(report: Mapping[str, Any], *, rejected: bool) -> str:
    """Markdown: whether the merge became the result, what the gates say of it, and what the report found."""
    gates = report["gates"]
    lines = ["**rejected**: kept apart, never the result", ""] if rejected else []
    lines += [f"gates: **{gates['verdict']}**", ""]
    lines += [f"- {gate['verdict']}: {gate['text']}" for gate in gates["gates"]] or ["- all passed"]
    lines += ["", f"report: **{report['verdict']}**", ""]
    return "\n".join(lines + ([f"- {finding}" for finding in report["findings"]] or ["- no findings"]))


def places(modules: Sequence[str] | Mapping[str, Any]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Layer -> projection -> module, in the order of the layers' numbers; and all projections."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    for module in modules:
        match = LAYER.fullmatch(module)
        place = (match["before"], int(match["layer"])) if match else ("", -1)
        found.setdefault(place, {})[match["projection"] if match else module] = module
    stacks = {before for before, _ in found}
    layers = {
        (str(layer) if len(stacks) == 1 else f"{before}.{layer}" if before else "other"): found[before, layer]
        for before, layer in sorted(found)
    }
    return layers, sorted({projection for row in found.values() for projection in row})


def lines(
    values: Mapping[str, Mapping[str, float | None]], layers: Mapping[str, Mapping[str, str]], title: str
) -> Figure:
    """A line per expert over the layers: means over a layer's projections.

    Choice: later lines are thinner, so that those of equal values show one inside the other; a logarithmic axis where
        values are positive and differ by more than a factor of 10.
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
    if drawn and min(drawn) > 0 and max(drawn) > 10 * min(drawn):
        axes.set_yscale("log")
    axes.set_title(f"{title}, mean over projections", fontsize=9)
    axes.set_xlabel("layer", fontsize=8)
    axes.tick_params(labelsize=7)
    figure.legend(loc="outside right upper", fontsize=7, handlelength=4)
    return figure


def grid(
    rows: Sequence[Sequence[float | None]],
    names: Sequence[str],
    columns: Sequence[str],
    title: str,
    axis: str = "",
    reach: float | None = None,
) -> Figure:
    """Figures as a heat map with their values written in; gaps stay white. Drawn without a display.

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


def readable_on(colour: Sequence[float]) -> str:
    """Black on light colours, white on dark ones.

    Args:
        colour: red, green, blue and what follows, 0 to 1.

    Source: luma of ITU-R BT.601.
    """
    red, green, blue = colour[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
