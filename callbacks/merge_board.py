"""A merge on TensorBoard: heat maps over layers and projections, matrices between experts, scalars per expert."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.tensorboard import SummaryWriter

from merge.report import mean

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
    """Write a report's figures and scalars as one event file; an earlier merge's make room.

    Args:
        folder: of the merged agent.
        report: see `merge.report.conflict_report`.
    """
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        for key in PER_EXPERT:
            for name in report["names"]:
                if (value := report["experts"][name][key]) is not None:
                    writer.add_scalar(f"merge/{key}/{name}", value, 0)
        writer.add_scalar("merge/retained_energy", report["merged"]["retained_energy"], 0)
        for key, title in MATRICES.items():
            writer.add_figure(f"merge/{key}", grid(report[key], report["names"], report["names"], title))
        layers, projections = places(report["modules"])
        maps = {key: (title, {n: f[key] for n, f in report["modules"].items()}) for key, title in HEAT_MAPS.items()}
        for key in PER_EXPERT:
            of = {n: {m: found[key][n] for m, found in report["modules"].items()} for n in report["names"]}
            of = {name: values for name, values in of.items() if any(v is not None for v in values.values())}
            maps |= {f"{key}/{name}": (f"{key} of {name}", values) for name, values in of.items()}
            if of:
                writer.add_figure(f"merge/layers/{key}", lines(of, layers, key))
        for key, (title, values) in maps.items():
            rows = [[values.get(layers[layer].get(projection, "")) for projection in projections] for layer in layers]
            writer.add_figure(f"merge/modules/{key}", grid(rows, list(layers), projections, title))
        writer.add_text("merge/verdict", "\n".join(f"- {line}" for line in report["findings"]) or "no findings", 0)


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
    """A line per expert over the layers: means over a layer's projections."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.0, 2 + 0.25 * len(layers)), 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, of in values.items():
        means = [mean([of[module] for module in modules.values()]) for modules in layers.values()]
        axes.plot(list(layers), [math.nan if value is None else value for value in means], marker="o", label=name)
    axes.set_title(f"{title}, mean over projections", fontsize=9)
    axes.set_xlabel("layer", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7)
    return figure


def grid(rows: Sequence[Sequence[float | None]], names: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    """Figures as a heat map with their values written in; gaps stay white. Drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5 + 0.9 * len(columns), 1.8 + 0.35 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    values = [[math.nan if value is None else value for value in row] for row in rows]
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    axes.set_title(title, fontsize=9)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if not math.isnan(value):
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=6, color="white")
    figure.colorbar(image, ax=axes)
    return figure
