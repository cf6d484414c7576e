"""Whether a judge is as often right as it says, where its replies state probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation.report_files import markdown
from judging.cases import DIMENSIONS
from judging.confidence import log_odds, stated_and_true
from judging.measures import share
from judging.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_modules.calibration import Calibration

ALL = "all six"
POINTS = 10
"""Of the reliability figure, with as many verdicts each as can be."""
TOLD = (
    "Of verdicts with a stated probability, in the order given. ECE is the expected calibration error over 15 bins of "
    "equal width, Brier the mean squared error: 0.25 knows nothing. `fitted here` is the temperature that these very "
    "verdicts would choose, 1 where the stated probabilities are as they should be.{before}\n"
)
BEFORE = " `untempered`: before the temperature that was fitted on validation data, {temperature:.2f}."


class Line(NamedTuple):
    """One dimension's calibration, as stated and as it would be without the judge's temperature."""

    dimension: str
    stated: Calibration
    untempered: Calibration | None


def lines(sheet: Sheet) -> list[Line]:
    """Calibration of each dimension and of all; empty where no reply states probabilities."""
    if sheet.mode != "pair":
        return []
    import torch  # which reports of other judges need not wait for

    from lightning_modules.calibration import calibration

    found, temperature = [], temperature_of(sheet)
    for name in (*DIMENSIONS, ""):
        said, truths, _ = stated_and_true(sheet, name)
        if len(said):
            odds, outcomes = torch.from_numpy(log_odds(said)), torch.from_numpy(truths)
            before = None if temperature is None else calibration(odds * temperature, outcomes)
            found.append(Line(name or ALL, calibration(odds, outcomes), before))
    return found


def temperature_of(sheet: Sheet) -> float | None:
    """What the judge divided its log-odds by; None where it says nothing of that."""
    held = sheet.asked["judge"]
    return held.get("temperature") if held.get("judge") == "trained" else None


def section(sheet: Sheet) -> list[str]:
    """The report's part on calibration; empty where there is none."""
    found, temperature = lines(sheet), temperature_of(sheet)
    if not found:
        return []
    rows = []
    for one in found:
        before = one.untempered
        numbers = [one.stated.ece, one.stated.brier, one.stated.temperature]
        numbers += [] if before is None else [before.ece, before.brier]
        rows.append([one.dimension, str(one.stated.n), *(f"{number:.3f}" for number in numbers)])
    head = ["dimension", "verdicts", "ECE", "Brier", "fitted here"]
    head += [] if temperature is None else ["ECE untempered", "Brier untempered"]
    told = TOLD.format(before="" if temperature is None else BEFORE.format(temperature=temperature))
    return ["## Calibration\n", markdown(head, rows) + "\n", told]


def reliability(sheet: Sheet) -> Figure | None:
    """How often what was given p came true, all dimensions together; None where no reply states probabilities.

    Read from 0.5 on: a probability below it for one answer is one above it for the other.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    said, truths, clusters = stated_and_true(sheet)
    if not len(said):
        return None
    sure, right = np.maximum(said, 1 - said), np.where(said >= 0.5, truths, 1 - truths) == 1
    drawn = Figure(figsize=(4.6, 4.4), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.subplots()
    order = np.argsort(sure, kind="stable")
    for part in np.array_split(order, min(POINTS, len(order))):
        one, x = share(right[part], clusters[part]), float(sure[part].mean())
        axes.errorbar(x, one.value, yerr=[[one.value - one.low], [one.high - one.value]], fmt="o", color="tab:blue")
    axes.plot((0.5, 1), (0.5, 1), color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlim(0.49, 1.01)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("stated probability of the verdict", fontsize=9)
    axes.set_ylabel("share of right verdicts, 95 %", fontsize=9)
    axes.set_title(sheet.name.replace("$", r"\$"), fontsize=10)
    return drawn
