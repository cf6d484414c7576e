"""One answer chosen of several: by majority, by a verifier's votes, as its best; next to chance and to an oracle."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evaluation.bounded import bounded_mean
from evaluation.clustered import clustered_wilson
from evaluation.odds import Odds, key_of
from evaluation.predictions import Prediction
from evaluation.report_files import Table, percent
from evaluation.scorers import answered_text, main_outcome, right_text
from evaluation.several import voters
from evaluation.shares import Share
from evaluation.verified import Selective, best_of_k, oracle_share, selective, weighted_vote
from evaluation.votes import maj_at_k, pass_at_k, vote

CHOICES = ("majority", "weighted vote", "best of n")
CAPTION = (
    "By the odds in `verified.jsonl`, of the verifier that it names (`python -m judging.verify`, whose `verified.md` "
    "has the rest): the answer that most give, the one with the largest sum of its probabilities, the surest one. "
    "Intervals by patient."
)


class Verified(NamedTuple):
    """An answer and the verifier's log-odds that it is right."""

    item: Prediction
    odds: float


@dataclass(frozen=True)
class Question:
    """Several answers to one question.

    Attributes:
        patient: whom it is about.
        gold: the right answer.
        said: what each answer says; None where nothing could be read.
        ballot: those of them that vote by count, see `evaluation.several.voters`.
        right: whether each is right.
        odds: the verifier's log-odds that it is.
    """

    patient: str
    gold: str
    said: tuple[str | None, ...]
    ballot: tuple[str | None, ...]
    right: tuple[bool, ...]
    odds: tuple[float, ...]

    @classmethod
    def of(cls, answers: Sequence[Verified]) -> Question:
        """Read the answers by the main score."""
        items = [one.item for one in answers]
        outcomes = [main_outcome(item) for item in items]
        said = [answered_text(item, outcome) for item, outcome in zip(items, outcomes, strict=True)]
        right, odds = tuple(one.right for one in outcomes), tuple(one.odds for one in answers)
        return cls(items[0].patient_id, right_text(items[0]), tuple(said), tuple(voters(items, said)), right, odds)

    def chosen(self) -> dict[str, float]:
        """Each of `CHOICES` -> 1 where it is right, 0 where not; between where the best answers are equally sure."""
        probabilities = [1 / (1 + math.exp(-max(-700.0, value))) for value in self.odds]
        by_weight = weighted_vote(self.said, probabilities)
        best = best_of_k(self.odds, self.right, len(self.odds))
        return dict(
            zip(CHOICES, (float(vote(self.ballot) == self.gold), float(by_weight == self.gold), best), strict=True)
        )

    def at(self, k: int) -> tuple[float, float, float]:
        """pass@k, maj@k and best of k."""
        n, right = len(self.odds), sum(self.right)
        return pass_at_k(n, right, k), maj_at_k(Counter(self.said), self.gold, k), best_of_k(self.odds, self.right, k)


@dataclass(frozen=True)
class Line:
    """One model on one specialty.

    Attributes:
        model: row of the matrix.
        specialty: column.
        n: questions.
        k: answers to each.
        at_k: k -> pass@k, maj@k and best of k.
        chosen: each of `CHOICES` -> accuracy with its interval.
        gap: the same names -> share of the oracle's gap.
        difference: best of n minus majority, with its interval.
        curve: of the best of n, by its probability.
    """

    model: str
    specialty: str
    n: int
    k: int
    at_k: Mapping[int, tuple[float, ...]]
    chosen: Mapping[str, tuple[float, float, float]]
    gap: Mapping[str, Share]
    difference: tuple[float, float, float]
    curve: Selective


def lines_of(answers: Sequence[Verified]) -> list[Line]:
    """Every model on every specialty, in order of first appearance.

    Raises:
        ValueError: questions of a model have different numbers of answers, or one each.
    """
    groups: dict[tuple[str, str], dict[str, list[Verified]]] = {}
    for one in answers:
        of = groups.setdefault((one.item.model, one.item.specialty), {})
        of.setdefault(one.item.question_id, []).append(one)
    return [line_of(model, specialty, list(held.values())) for (model, specialty), held in groups.items()]


def line_of(model: str, specialty: str, groups: Sequence[Sequence[Verified]]) -> Line:
    """One model on one specialty; errors as of `lines_of`."""
    sizes = {len(held) for held in groups}
    if len(sizes) != 1 or sizes == {1}:
        raise ValueError(
            f"{model} on {specialty}: questions have {min(sizes)} to {max(sizes)} answers; a verifier chooses among "
            "the same number for each, at least two: examine with samples or guidelines"
        )
    k, questions = sizes.pop(), [Question.of(held) for held in groups]
    ks = sorted({2**i for i in range(k.bit_length()) if 2**i <= k} | {k})
    patients = [one.patient for one in questions]
    single = [sum(one.right) / k for one in questions]
    oracle = [float(any(one.right)) for one in questions]
    chosen = {name: [one.chosen()[name] for one in questions] for name in CHOICES}
    majority, best = chosen[CHOICES[0]], chosen[CHOICES[-1]]
    gained = bounded_mean([b - a for a, b in zip(majority, best, strict=True)], patients)
    return Line(
        model,
        specialty,
        len(questions),
        k,
        {size: tuple(map(mean, zip(*(one.at(size) for one in questions), strict=True))) for size in ks},
        {name: (mean(values), *clustered_wilson(values, patients)) for name, values in chosen.items()},
        {name: oracle_share(values, single, oracle, patients) for name, values in chosen.items()},
        (gained.mean, *gained.interval(0.95)),
        selective([max(one.odds) for one in questions], best),
    )


def chosen_table(parts: Mapping[str, Mapping[str, Sequence[Prediction]]], odds: Odds) -> Table:
    """What a verifier chooses of several answers, beside chance, the oracle and the majority; no rows without its odds.

    Args:
        parts: model -> specialty -> answers.
        odds: of each; a model has no row on a specialty where one is missing.
    """
    known = [
        items
        for columns in parts.values()
        for items in columns.values()
        if all(key_of(item) in odds for item in items) and is_chosen_from(items)
    ]
    rows = []
    for one in lines_of([Verified(item, odds[key_of(item)]) for items in known for item in items]):
        passed = [f"{100 * one.at_k[size][0]:.1f}" for size in (1, one.k)]
        chosen = [percent(*one.chosen[name]) for name in CHOICES]
        won = percent(*one.difference, sign="+")
        rows.append([one.model, one.specialty, str(one.n), str(one.k), *passed, *chosen, won])
    names = ["model", "specialty", "questions", "n", "pass@1, %", "pass@n, %", *(f"{name}, %" for name in CHOICES)]
    return Table([*names, "best of n - majority, points"], rows, CAPTION)


def is_chosen_from(items: Sequence[Prediction]) -> bool:
    """Whether every question has the same number of answers, more than one."""
    counts = set(Counter(item.question_id for item in items).values())
    return len(counts) == 1 and counts != {1}


def mean(values: Sequence[float]) -> float:
    """The mean, summed exactly."""
    return math.fsum(values) / len(values)
