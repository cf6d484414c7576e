"""Training curves from the event files: a row per quantity, a column per specialty, a colour per experiment."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.report.labels import COLOURS, label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTITIES = {
    r"val/accuracy/([^/]+)": "validation\naccuracy",
    "train/reward/total": "reward",
    "train/reward/correct": "rollouts\nthat are right",
    "train/kl/ref_nats": "KL to the expert\nbeneath, nats",
    r"train/specialty/([^/]+)/kl_nats": "KL to the\nteacher, nats",
    "train/loss": "loss, nats\nper token",
    "train/dead_rows": "rollouts that\nteach nothing",
    "train/completion/tokens": "length, tokens",
}
"""Tag, with the specialty in brackets where the tag names it -> what the chart is called; in order of worth."""
Points = Sequence[tuple[int, float]]
Curves = Mapping[str, Mapping[str, Mapping[str, Points]]]
"""Quantity -> column -> experiment -> its points, (batches done, value)."""


def curves_of(experiments: Mapping[str, Path]) -> Curves:
    """Read the curves of all runs of some experiments.

    Args:
        experiments: name in the report -> folder.
    """
    found: dict[str, dict[str, dict[str, Points]]] = {title: {} for title in QUANTITIES.values()}
    for name, folder in experiments.items():
        for run in runs_of(folder):
            for tag, points in scalars(run).items():
                for pattern, title in QUANTITIES.items():
                    if match := re.fullmatch(pattern, tag):
                        column = match[1] if match.groups() else run.name
                        found[title].setdefault(column, {})[name] = points
    return {title: columns for title, columns in found.items() if columns}


def runs_of(folder: Path) -> list[Path]:
    """The folders of an experiment's runs: those that say how long they took, or what they were made with."""
    return sorted({file.parent for name in ("timings.json", "provenance.json") for file in folder.glob(f"*/{name}")})


def scalars(run: Path, wanted: Collection[str] = QUANTITIES) -> dict[str, Points]:
    """Tag -> its points, as TensorBoard shows them: what an interrupted run withdrew is left out.

    Args:
        run: folder of event files.
        wanted: patterns of tags.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not any(run.glob("events.out.tfevents.*")):
        return {}
    kinds = ("images", "histograms", "compressedHistograms", "tensors", "audio")
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, **dict.fromkeys(kinds, 1)})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if any(re.fullmatch(one, tag) for one in wanted)]
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags}


def curves_figure(curves: Curves) -> Figure:
    """Draw curves that `curves_of` found, at least one; a quantity's charts share their scale."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = list(dict.fromkeys(column for held in curves.values() for column in held))
    names = sorted({name for held in curves.values() for column in held.values() for name in column})
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    size = (1.2 + 2.1 * len(columns), 0.8 + 1.35 * len(curves))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(curves), len(columns), squeeze=False, sharey="row")
    for axes_of_row, (title, held) in zip(grid, curves.items(), strict=True):
        axes_of_row[0].set_ylabel(title, fontsize=8)
        for axes, column in zip(axes_of_row, columns, strict=True):
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            if column not in held:
                axes.set_axis_off() if axes is not axes_of_row[0] else axes.set_xticks([])
            for name, points in held.get(column, {}).items():
                steps, values = zip(*points, strict=True)
                axes.plot(steps, values, color=colours[name], marker="o" if len(points) < 12 else "", markersize=3)
    for axes, column in zip(grid[0], columns, strict=True):
        axes.set_title(label(column), fontsize=9)
    lines = [figure.axes[0].plot([], [], color=colours[name], label=label(name))[0] for name in names]
    figure.legend(handles=lines, loc="outside upper center", ncols=min(4, len(names)), fontsize=8, frameon=False)
    figure.supxlabel("batches", fontsize=8)
    return figure
