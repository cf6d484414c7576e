"""What a reward pays and what answers are worth, over the steps of training: is a reward over-optimised?

    python -m evaluation.over_steps runs/judged_rewards/seed*/*/ --out runs/judged_rewards/over_steps

Each folder is an experiment whose runs were rewarded and validated on the way (`fit.val_every`); those that no reward
taught are left out. An arm is what its folder is called, and folders of one name are its seeds. Rewards are those of
the rollouts that were learned from, each term as it was paid, unweighted; accuracy is that on held-out questions under
the neutral prompt.
"""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import ttest_1samp

from evaluation.report.curves import Points, runs_of, scalars
from evaluation.report.labels import COLOURS
from evaluation.report_files import markdown, percent
from evaluation.table_command import Made, table_command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCURACY = r"val/accuracy/[^/]+"
TERM = r"train/reward/([^/]+)"
NO_TERMS = ("total", "unknown")
"""What `TERM` finds beside the terms."""
CAPTION = (
    "Means over specialties and seeds, in percent. Accuracy is at the end of the steps named, rewards are means over "
    "them. Changes: accuracy from before the first step to after the last; a reward from the first steps named to the "
    "last. Brackets hold 95 % over seeds by Student's quantile. Over-optimised is a reward that rose while accuracy "
    "fell, both by their intervals."
)


@dataclass(frozen=True)
class Course:
    """One seed of one arm, the mean over its specialties; all values are fractions.

    Attributes:
        steps: of the validations, ascending, at least 2.
        accuracy: (V,) at each.
        terms: reward term -> (V - 1,) means between two validations.
    """

    steps: tuple[int, ...]
    accuracy: np.ndarray
    terms: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Change:
    """From the start to the end, over seeds. The ends of the interval are NaN where seeds do not give one."""

    mean: float
    low: float
    high: float


def course_of(folder: Path) -> Course | None:
    """Read one experiment; None if no reward taught its runs.

    Raises:
        ValueError: there are no runs, or one was not validated twice, or its specialties not at the same steps or not
            by the same terms.
    """
    runs = runs_of(folder)
    if not runs:
        raise ValueError(f"{folder} has no runs")
    found = [one for one in map(course_of_run, runs) if one is not None]
    if not found:
        return None
    if len({(one.steps, tuple(one.terms)) for one in found}) > 1:
        raise ValueError(f"{folder}: its specialties were validated at other steps, or paid by other terms")
    return mean_course(found)


def course_of_run(run: Path) -> Course | None:
    """Read one run; result and errors as of `course_of`."""
    read = scalars(run, (ACCURACY, TERM))
    validated = [points for tag, points in read.items() if re.fullmatch(ACCURACY, tag)]
    paid = {tag.rpartition("/")[2]: points for tag, points in read.items() if re.fullmatch(TERM, tag)}
    terms = {name: points for name, points in sorted(paid.items()) if name not in NO_TERMS}
    if not terms:
        return None
    if len(validated) != 1 or len(validated[0]) < 2:
        raise ValueError(f"{run}: needs two validations of one specialty; set fit.val_every")
    steps, accuracy = zip(*validated[0], strict=True)
    return Course(steps, np.array(accuracy), {name: between(points, steps) for name, points in terms.items()})


def between(points: Points, steps: Sequence[int]) -> np.ndarray:
    """(V - 1,) means of the points from one validation to the next.

    Raises:
        ValueError: there are none.
    """
    of = np.digitize([step for step, _ in points], steps)
    values = np.array([value for _, value in points])
    if missing := [steps[i] for i in range(1, len(steps)) if not (of == i).any()]:
        raise ValueError(f"no rewards are logged between the validation at step {missing[0]} and the one before")
    return np.array([values[of == i].mean() for i in range(1, len(steps))])


def mean_course(courses: Sequence[Course]) -> Course:
    """The mean of courses of the same steps and terms."""
    first = courses[0]
    terms = {name: np.mean([one.terms[name] for one in courses], axis=0) for name in first.terms}
    return Course(first.steps, np.mean([one.accuracy for one in courses], axis=0), terms)


def arms_of(folders: Sequence[Path]) -> dict[str, list[Course]]:
    """The arms, each with its seeds, in the order given.

    Raises:
        ValueError: as of `course_of`; or a folder is given twice, or arms were validated at other steps, or the seeds
            of one were paid by other terms.
    """
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise ValueError("a folder is given twice, and every seed counts once")
    arms: dict[str, list[Course]] = {}
    for place in places:
        if (course := course_of(place)) is not None:
            arms.setdefault(place.name, []).append(course)
    if not arms:
        raise ValueError("no reward taught any of these experiments")
    if len({one.steps for courses in arms.values() for one in courses}) > 1:
        raise ValueError("experiments are compared step by step, and these were validated at other steps")
    if mixed := [name for name, courses in arms.items() if len({tuple(one.terms) for one in courses}) > 1]:
        raise ValueError(f"seeds of {mixed[0]} were paid by other terms")
    return arms


def changed(values: Sequence[np.ndarray]) -> Change:
    """From the first to the last value of each seed, over seeds.

    Args:
        values: by seed, (V,) each.
    """
    ends = [float(one[-1] - one[0]) for one in values]
    mean = float(np.mean(ends))
    if len(ends) < 2 or np.ptp(ends) < 1e-12:  # an interval without width would claim certainty
        return Change(mean, math.nan, math.nan)
    low, high = ttest_1samp(ends, 0.0).confidence_interval(0.95)
    return Change(mean, float(low), float(high))


def changes(courses: Sequence[Course]) -> dict[str, Change]:
    """Accuracy's, and every term's."""
    found = {"accuracy": changed([one.accuracy for one in courses])}
    return found | {name: changed([one.terms[name] for one in courses]) for name in courses[0].terms}


def over_optimised(reward: Change, accuracy: Change) -> bool:
    """Whether seeds show that a reward rose and accuracy fell. Source: Gao et al. 2022, arXiv 2210.10760."""
    return reward.low > 0 and accuracy.high < 0


# -- for reading -----------------------------------------------------------------------------------------------------


def shown(change: Change) -> str:
    """A change in points."""
    if math.isnan(change.low):
        return f"{100 * change.mean:+.1f}"
    return percent(change.mean, change.low, change.high, sign="+")


def table(arms: Mapping[str, Sequence[Course]]) -> str:
    """All arms over the steps, in Markdown."""
    terms = list(dict.fromkeys(name for courses in arms.values() for name in courses[0].terms))
    lines = []
    for arm, courses in arms.items():
        mean, found = mean_course(courses), changes(courses)
        for i, step in enumerate(mean.steps):
            paid = [f"{100 * mean.terms[name][i - 1]:.1f}" if i and name in mean.terms else "-" for name in terms]
            span = f"{mean.steps[i - 1]} to {step}" if i else "before"
            lines.append([arm, span, f"{100 * mean.accuracy[i]:.1f}", *paid])
        told = [shown(found[name]) if name in found else "-" for name in terms]
        lines.append([arm, "change, points", shown(found["accuracy"]), *told])
    counted = ", ".join(f"{arm} {len(courses)}" for arm, courses in arms.items())
    header = ["arm", "steps", "accuracy", *terms]
    return f"{markdown(header, lines, names=2)}\n\n{verdict(arms)}\n\nSeeds: {counted}. {CAPTION}"


def verdict(arms: Mapping[str, Sequence[Course]]) -> str:
    """Which rewards were over-optimised, line by line."""
    lines = []
    for arm, courses in arms.items():
        found = changes(courses)
        over = [name for name in courses[0].terms if over_optimised(found[name], found["accuracy"])]
        if len(courses) == 1:
            lines.append(f"- {arm}: one seed shows no over-optimisation, whatever its numbers.")
        elif over:
            lines.append(f"- {arm}: {', '.join(over)} over-optimised: paid more, while accuracy fell.")
        else:
            lines.append(f"- {arm}: no reward is shown to be over-optimised.")
    return "\n".join(lines)


def as_csv(arms: Mapping[str, Sequence[Course]]) -> str:
    """Every number of every seed, as fractions; `before` has accuracy alone."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arm", "seed", "step", "quantity", "value"])
    for arm, courses in arms.items():
        for seed, one in enumerate(courses):
            for step, value in zip(one.steps, one.accuracy, strict=True):
                writer.writerow([arm, seed, step, "accuracy", value])
            for name, values in one.terms.items():
                writer.writerows(
                    [arm, seed, step, name, value] for step, value in zip(one.steps[1:], values, strict=True)
                )
    return out.getvalue()


def figure(arms: Mapping[str, Sequence[Course]]) -> Figure:
    """A chart per quantity; an arm's mean is a thick line, its seeds are thin ones. Drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    terms = list(dict.fromkeys(name for courses in arms.values() for name in courses[0].terms))
    drawn = Figure(figsize=(7, 1 + 1.6 * (1 + len(terms))), layout="constrained")
    FigureCanvasAgg(drawn)
    grid = drawn.subplots(1 + len(terms), 1, sharex=True, squeeze=False)[:, 0]
    for (arm, courses), colour in zip(arms.items(), COLOURS * len(arms), strict=False):
        for one, width in [*((one, 0.5) for one in courses), (mean_course(courses), 2.0)]:
            label = arm if width > 1 else None
            grid[0].plot(one.steps, 100 * one.accuracy, color=colour, linewidth=width, label=label)
            middles = [(a + b) / 2 for a, b in zip(one.steps, one.steps[1:], strict=False)]
            for axes, name in zip(grid[1:], terms, strict=True):
                if name in one.terms:
                    axes.plot(middles, 100 * one.terms[name], color=colour, linewidth=width)
    for axes, name in zip(grid, ["accuracy, %", *(f"{name}, %" for name in terms)], strict=True):
        axes.set_ylabel(name, fontsize=8)
        axes.grid(alpha=0.3)
    grid[-1].set_xlabel("batches")
    drawn.legend(loc="outside upper center", ncols=len(arms), fontsize=8, frameon=False)
    return drawn


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the arms over the steps, and write them with their figure; returns as `table_command` does."""

    def make(folders: Sequence[Path]) -> Made:
        arms = arms_of(folders)
        return Made(table(arms), as_csv(arms), lambda: figure(arms))

    return table_command("over_steps", "evaluation.over_steps", __doc__, "one name is one arm", make, arguments)


if __name__ == "__main__":
    sys.exit(main())
