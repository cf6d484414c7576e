"""Which combination an arm takes: the best by its validation questions. A function of the answers alone."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from experiment.sweep.answers import arm_answers
from experiment.sweep.runs import Run, Runs
from experiment.sweep.standing import is_finished


@dataclass(frozen=True)
class Tried:
    """One combination.

    Attributes:
        point: its number.
        values: setting -> value.
        scores: of each tuning seed, in order: the mean over specialties of the share of right answers.
        mean: over seeds.
    """

    point: int
    values: dict[str, Any]
    scores: tuple[float, ...]
    mean: float


@dataclass(frozen=True)
class Choice:
    """What tuning came to for one arm.

    Attributes:
        tried: every combination, in the order of the file.
        taken: number of the best; of several equally good ones the first.
    """

    tried: tuple[Tried, ...]
    taken: int

    @property
    def values(self) -> dict[str, Any]:
        """The settings that are taken."""
        return self.tried[self.taken].values

    @property
    def at_the_edge(self) -> list[str]:
        """Settings, of several numbers, of which the smallest or the largest was taken: a better one may lie beyond."""
        found = []
        for key, value in self.values.items():
            values = {one.values[key] for one in self.tried if is_number(one.values[key])}
            if len(values) > 2 and is_number(value) and value in (min(values), max(values)):
                found.append(key)
        return found


def is_number(value: Any) -> bool:
    """Whether a value can be larger than another."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def choice_of(runs: Runs, arm: str) -> Choice | None:
    """What tuning came to for an arm; None where nothing is tuned.

    Raises:
        RuntimeError: it has not ended.
        OSError: answers are missing.
        ValueError: answers cannot be compared.
    """
    sweep = runs.file.sweep
    points = sweep.points(arm)
    if not points:
        return None
    tried = []
    for point, values in enumerate(points):
        made = [run for run in runs.tried_of(arm) if run.point == point]
        if missing := [run.label for run in made if not is_finished(run)]:
            raise RuntimeError(f"{missing[0]} has not ended, so that nothing can be chosen for {arm} yet")
        tried.append(Tried(point, values, *scores(runs, arm, made)))
    best = max(one.mean for one in tried)
    return Choice(tuple(tried), next(one.point for one in tried if one.mean > best - 1e-12))


def scores(runs: Runs, arm: str, made: list[Run]) -> tuple[tuple[float, ...], float]:
    """The score of each seed, and their mean."""
    by = runs.file.sweep.primary
    columns = by.specialties or list(made[0].loaded.experiment.specialties)
    seeds, folders, names = [run.seed for run in made], [run.folder for run in made], [run.folder.name for run in made]
    parts = arm_answers(arm, seeds, folders, names, columns, by).parts()
    own = [fmean(float(values[i].mean()) for values, _ in parts.values()) for i in range(len(made))]
    return tuple(own), fmean(own)
