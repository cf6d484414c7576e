"""Who is who in a matrix: the base, the experts of each stage on their own specialties, and the agents made for all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.clustered import cluster_index
from evaluation.kept import BASE, answers_of
from evaluation.predictions import Prediction
from evaluation.routes import SENT_TO, expert_rows
from evaluation.scorers import main_outcome
from evaluation.scoring import refuse_different_questions
from evaluation.shares import Outcomes
from evaluation.systems import System

REJECTED = ".rejected"
"""Ends the row of a merge that the gates rejected."""
ORACLE = "/router/oracle"
"""Ends the row that has the experts' own answers."""


def of_any_verdict(row: str) -> str:
    """A row by its method alone: seeds of one method differ in what the gates said of their merges.

    >>> of_any_verdict("gba/merged/ties.rejected")
    'gba/merged/ties'
    """
    return row.removesuffix(REJECTED)


def told_verdicts(row: str, seeds: Sequence[Collection[str]]) -> str:
    """A row's name over seeds, with how many of their merges the gates rejected.

    >>> told_verdicts("gba/merged/ties", [["base", "gba/merged/ties"], ["base", "gba/merged/ties.rejected"]])
    'gba/merged/ties (rejected in 1 of 2)'
    """
    rejected = sum(row + REJECTED in rows for rows in seeds)
    return f"{row} (rejected in {rejected} of {len(seeds)})" if rejected else row


@dataclass(frozen=True)
class Cast:
    """The rows of a matrix by what they are; all answered the same questions.

    Attributes:
        base: what all of them grew from.
        stages: "NAME's experts" -> each of them on its own specialty, as one system; in the order of the matrix.
        experts: "NAME's experts" -> their rows.
        agents: row -> one model for all specialties: merged, rejected by the gates, or trained.
        others: row -> what else answered all questions and is no expert: routers, models that the user named; not the
            oracle router of the last stage, which is its experts.
    """

    base: System
    stages: Mapping[str, System]
    experts: Mapping[str, Sequence[str]]
    agents: Mapping[str, System]
    others: Mapping[str, System]

    @property
    def last(self) -> System:
        """The experts of the last stage, whose gain is shared."""
        return list(self.stages.values())[-1]

    def outcomes(self, agent: System) -> dict[str, Outcomes]:
        """Specialty -> who was right on its questions, among base, agent and the last experts."""
        patients: dict[str, list[str]] = {}
        for key, item in self.base.items.items():
            patients.setdefault(key[0], []).append(item.patient_id)
        columns = [by_column(one) for one in (self.base, agent, self.last)]
        return {
            name: Outcomes(*(column[name] for column in columns), cluster_index(of)) for name, of in patients.items()
        }


def cast(predictions: Sequence[Prediction]) -> Cast | None:
    """Tell the rows of a matrix apart; None where it has no base, or no experts of all specialties.

    Args:
        predictions: of all models in the main way; who was not asked about every specialty is left out.

    Raises:
        ValueError: models were asked different questions of one specialty.
    """
    refuse_different_questions(predictions)
    answers = answers_of(predictions)
    asked = answers.get(BASE, {}).keys()
    answers = {name: items for name, items in answers.items() if items.keys() == asked}
    columns = list(dict.fromkeys(item.specialty for item in predictions))
    found = expert_rows(answers, columns)
    if BASE not in answers or not found:
        return None
    stages, experts = {}, {}
    for experiment, rows in found.items():
        name = f"{experiment}'s experts"
        own = {key: item for column, row in rows.items() for key, item in answers[row].items() if key[0] == column}
        stages[name], experts[name] = system(name, own), list(rows.values())
    known = {BASE, list(found)[-1] + ORACLE} | {row for rows in found.values() for row in rows.values()}
    agents, others = {}, {}
    for name, items in answers.items():
        if name not in known and is_agent(name, items):
            agents[name] = system(name, items)
        elif name not in known and not is_expert(name, columns):
            others[name] = system(name, items)
    return Cast(system(BASE, answers[BASE]), stages, experts, agents, others)


def is_expert(name: str, columns: Sequence[str]) -> bool:
    """Whether a row is called after one specialty, be it of an experiment that has not an expert for each."""
    return name.rpartition("/")[2] in columns


def is_agent(name: str, items: Mapping[tuple, Prediction]) -> bool:
    """Whether a row is one model made for all specialties."""
    return ("/merged/" in name or name.endswith("/agent")) and not any(SENT_TO in i.tags for i in items.values())


def system(name: str, items: Mapping[tuple, Prediction]) -> System:
    """A row, or the rows of a stage's experts together, as it is compared."""
    ordered = {key: items[key] for key in sorted(items)}
    return System(name, 0, name, ordered, {key: main_outcome(item).right for key, item in ordered.items()})


def by_column(one: System) -> dict[str, list[int]]:
    """Specialty -> 1 where the answer is right."""
    found: dict[str, list[int]] = {}
    for key, right in one.right.items():
        found.setdefault(key[0], []).append(int(right))
    return found


def accuracy(one: System) -> float:
    """Mean over specialties."""
    return float(np.mean([np.mean(column) for column in by_column(one).values()]))
