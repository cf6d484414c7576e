"""Accuracy by the values of a tag, such as the question's type or the picture's modality, of the models that matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from evaluation.agents import REJECTED, accuracy, cast
from evaluation.predictions import Prediction
from evaluation.report.labels import COLOURS, label
from evaluation.scoring import Score, by_tag, score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 4
"""Models in a chart; its table has all."""
Bars = Mapping[str, Mapping[str, Score]]
"""Model -> value of the tag -> its score."""


def matter(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """Name -> answers: base, the last experts each on their own specialty, and the best agent; else the first models.

    Args:
        predictions: of all models in the main way.
    """
    found = cast(predictions)
    if found is None:
        models: dict[str, list[Prediction]] = {}
        for item in predictions:
            models.setdefault(item.model, []).append(item)
        return dict(list(models.items())[:MOST])
    agents = [one for name, one in found.agents.items() if not name.endswith(REJECTED)]
    shown = [found.base, found.last, *sorted(agents, key=accuracy, reverse=True)[: MOST - 2]]
    return {one.name: list(one.items.values()) for one in shown}


def bars_of(models: Mapping[str, Sequence[Prediction]], tag: str) -> Bars:
    """Score models by the values of a tag, as the table of that tag does."""
    return {name: {value: score(items) for value, items in by_tag(held, tag).items()} for name, held in models.items()}


def bars_figure(bars: Bars) -> Figure:
    """Draw bars with their 95 % intervals by patient."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = list(dict.fromkeys(value for held in bars.values() for value in held))
    height = 0.8 / len(bars)
    figure = Figure(figsize=(8, 0.9 + (0.14 + 0.2 * len(bars)) * len(values)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, (name, held) in enumerate(bars.items()):
        places = [y + (i - (len(bars) - 1) / 2) * height for y, value in enumerate(values) if value in held]
        found = [held[value] for value in values if value in held]
        right = [100 * one.accuracy for one in found]
        low = [100 * (one.accuracy - one.low) for one in found]
        high = [100 * (one.high - one.accuracy) for one in found]
        axes.barh(places, right, height * 0.9, color=COLOURS[i % len(COLOURS)], label=label(name))
        ends = [[max(0.0, end) for end in side] for side in (low, high)]
        axes.errorbar(right, places, xerr=ends, fmt="none", ecolor="black", elinewidth=0.8, capsize=2)
    first = next(iter(bars.values()))
    sizes = [f" (n = {first[value].n})" if value in first else "" for value in values]
    axes.set_yticks(range(len(values)), [label(v) + n for v, n in zip(values, sizes, strict=True)], fontsize=8)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy, % (line: 95 %)", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=min(3, len(bars)), fontsize=8, frameon=False)
    return figure
