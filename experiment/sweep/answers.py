"""What the arms answered: right or wrong, by seed and question, in the cells that the primary comparison counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evaluation.pairwise import by_specialty, outcomes, patients_of
from evaluation.predictions import Prediction
from evaluation.seed_means import Part
from evaluation.systems import System, load_systems, refuse_unlike
from experiment.sweep.spec import EXPERT, Primary

FILE = Path("evaluation/predictions.jsonl")


@dataclass(frozen=True)
class Answers:
    """An arm's answers over seeds, all to the same questions.

    Attributes:
        arm: its name.
        seeds: in order.
        runs: one per seed.
    """

    arm: str
    seeds: tuple[int, ...]
    runs: tuple[System, ...]

    @property
    def columns(self) -> dict[str, list[tuple]]:
        """Specialty -> the keys of its questions, in order; the same for every arm that was checked against this."""
        return {name: sorted(keys) for name, keys in sorted(by_specialty(self.runs[0]).items())}

    def parts(self) -> dict[str, Part]:
        """Specialty -> right or wrong by seed and question, and the patients."""
        return {
            name: (
                np.stack([outcomes(run.right, keys) for run in self.runs]).astype(float),
                patients_of(self.runs[0], keys),
            )
            for name, keys in self.columns.items()
        }


def arm_answers(
    arm: str, seeds: Sequence[int], folders: Sequence[Path], names: Sequence[str], columns: Sequence[str], by: Primary
) -> Answers:
    """Read an arm's answers.

    Args:
        arm: its name.
        seeds: of its runs.
        folders: of its runs' experiments.
        names: of its runs' experiments, by which rows are called.
        columns: specialties that count.
        by: what counts.

    Raises:
        OSError: there are no answers.
        ValueError: a row is missing, no question counts, or seeds were asked different questions.
    """
    given = zip(seeds, folders, names, strict=True)
    runs = tuple(answers_in(folder, name, columns, by, f"{arm} seed {seed}") for seed, folder, name in given)
    for run in runs[1:]:
        refuse_unlike(runs[0], run)
    return Answers(arm, tuple(seeds), runs)


def answers_in(folder: Path, name: str, columns: Sequence[str], by: Primary, called: str) -> System:
    """The answers of one run that count."""
    rows = {column: row_of(name, column, by) for column in columns}
    systems = {system.model: system for system in load_systems([folder], sorted(set(rows.values())), by.scorer)}
    items: dict[tuple, Prediction] = {}
    right: dict[tuple, bool] = {}
    for column, row in rows.items():
        chosen = {key: item for key, item in systems[row].items.items() if key[0] == column and counts(item, by)}
        if not chosen:
            raise ValueError(f"{folder}: no answer of {row} on {column} counts: {told(by, systems[row], column)}")
        items |= chosen
        right |= {key: systems[row].right[key] for key in chosen}
    first = next(iter(systems.values()))
    return replace(first, name=called, items=items, right=right, blind={})


def left_out(whole: Answers, by: Primary) -> Answers:
    """Those of an arm's answers that do not count."""
    runs = []
    for run in whole.runs:
        items = {key: item for key, item in run.items.items() if not counts(item, by)}
        runs.append(replace(run, items=items, right={key: run.right[key] for key in items}))
    return Answers(whole.arm, whole.seeds, tuple(runs))


def row_of(name: str, column: str, by: Primary) -> str:
    """The row of the matrix that answers a specialty."""
    if by.answers_of == EXPERT:
        return f"{name}/{column}"
    return by.answers_of if by.answers_of == "base" else f"{name}/{by.answers_of}"


def counts(item: Prediction, by: Primary) -> bool:
    """Whether an answer is one of those that count."""
    return item.guideline == by.guideline and all(item.tags.get(tag) in values for tag, values in by.where.items())


def told(by: Primary, system: System, column: str) -> str:
    """What there is, where nothing counts."""
    items = [item for key, item in system.items.items() if key[0] == column]
    found = [f"guidelines {', '.join(sorted({item.guideline for item in items})) or 'none'} (asked for {by.guideline})"]
    for tag, values in by.where.items():
        there = sorted({item.tags[tag] for item in items if tag in item.tags})
        found.append(f"tag {tag!r} has {', '.join(there[:20]) or 'no value'} (asked for {', '.join(values)})")
    return "; ".join(found)


def paired(first: Mapping[str, Part], second: Mapping[str, Part]) -> list[Part]:
    """Differences of two arms, second minus first, seed by seed and question by question."""
    return [(second[name][0] - values, patients) for name, (values, patients) in first.items()]
