"""How many of a model's answers are right, by what attribute, and the matrix of models by specialties."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.answers import LETTERS
from evaluation.clustered import clustered_wilson
from evaluation.predictions import Prediction
from evaluation.scorers import lenient, main_outcome


@dataclass(frozen=True)
class Score:
    """Results of one model on one set of questions. Fractions are of n and lie in [0, 1].

    Attributes:
        n: completions: one per question, unless several guidelines or samples were asked for.
        correct_strict: right by the strict reading, or by the scorer of a released protocol (`scorers.main_scorer`).
        accuracy: correct_strict / n, the main score; what cannot be read counts as wrong.
        low: lower end of its 95 % interval, for which the answers about one patient count together
            (`clustered_wilson`).
        high: upper end.
        n_clusters: patients.
        accuracy_lenient: right by the lenient reading; reported beside the main score, never instead of it.
        parse_rate: share that the same reading can read.
        parse_rate_lenient: share that the lenient reading can read.
        refusals: share that declines to answer, by the lenient reading.
        truncated: share that reached the token limit.
        mean_tokens: mean length of a completion in tokens.
        letters: letter -> (times answered, times right answer), to show a preferred letter.
        reasons: reason code of the main score -> count.
    """

    n: int
    correct_strict: int
    accuracy: float
    low: float
    high: float
    n_clusters: int
    accuracy_lenient: float
    parse_rate: float
    parse_rate_lenient: float
    refusals: float
    truncated: float
    mean_tokens: float
    letters: Mapping[str, tuple[int, int]]
    reasons: Mapping[str, int]


def score(predictions: Sequence[Prediction], confidence: float = 0.95) -> Score:
    """Score completions of one model.

    Args:
        predictions: at least one.
        confidence: coverage of the interval, in (0, 1).

    Raises:
        ValueError: no predictions, or two for the same (model, specialty, question, guideline, sample).
    """
    if not predictions:
        raise ValueError("score: no predictions; was the split empty or the filter too narrow?")
    _refuse_duplicates(predictions)
    n = len(predictions)
    mainly, leniently = [main_outcome(item) for item in predictions], [lenient(item) for item in predictions]
    right = [outcome.right for outcome in mainly]
    patients = [(item.specialty, item.patient_id) for item in predictions]
    given = Counter(outcome.answered for outcome in mainly)
    gold = Counter(item.answer_letter for item in predictions)
    shown = LETTERS[: max(len(item.options) for item in predictions)]
    return Score(
        n,
        sum(right),
        sum(right) / n,
        *clustered_wilson(right, patients, confidence),
        len(set(patients)),
        accuracy_lenient=sum(outcome.right for outcome in leniently) / n,
        parse_rate=1 - given[None] / n,
        parse_rate_lenient=sum(outcome.answered is not None for outcome in leniently) / n,
        refusals=sum(outcome.reason == "refusal" for outcome in leniently) / n,
        truncated=sum(item.truncated for item in predictions) / n,
        mean_tokens=sum(item.n_tokens for item in predictions) / n,
        letters={letter: (given[letter], gold[letter]) for letter in shown},
        reasons=dict(sorted(Counter(outcome.reason for outcome in mainly).items())),
    )


def by_tag(predictions: Sequence[Prediction], tag: str) -> dict[str, list[Prediction]]:
    """Part answers by an attribute such as "modality"; what lacks it stands under "(none)".

    Args:
        predictions: of one model.
        tag: a key of `Prediction.tags`.

    Returns:
        Value -> its answers, in alphabetical order of the values.
    """
    parts: dict[str, list[Prediction]] = {}
    for item in predictions:
        parts.setdefault(item.tags.get(tag, "(none)"), []).append(item)
    return {value: parts[value] for value in sorted(parts)}


@dataclass(frozen=True)
class Row:
    """One model of the matrix.

    Attributes:
        model: its name.
        cells: specialty -> score; a specialty that the model was not tried on is absent.
        macro: mean accuracy over all columns, each specialty counting once; None if a cell is absent.
    """

    model: str
    cells: Mapping[str, Score]
    macro: float | None


def matrix(predictions: Iterable[Prediction]) -> tuple[Row, ...]:
    """Score every model on every specialty, rows and columns in order of first appearance.

    Raises:
        ValueError: no predictions, duplicates, or models that were asked different questions of one specialty.
    """
    predictions = list(predictions)
    found: dict[str, dict[str, list[Prediction]]] = {}
    columns: dict[str, None] = {}
    for item in predictions:
        columns[item.specialty] = None
        found.setdefault(item.model, {}).setdefault(item.specialty, []).append(item)
    if not found:
        raise ValueError("matrix: no predictions")
    refuse_different_questions(predictions)
    rows = []
    for model, cells in found.items():
        scores = {specialty: score(cells[specialty]) for specialty in columns if specialty in cells}
        accuracies = [item.accuracy for item in scores.values()]
        macro = math.fsum(accuracies) / len(accuracies) if len(accuracies) == len(columns) else None
        rows.append(Row(model, scores, macro))
    return tuple(rows)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every specialty that some row has, in order of first appearance."""
    return list(dict.fromkeys(specialty for row in rows for specialty in row.cells))


def _key(item: Prediction) -> tuple[Any, ...]:
    return item.model, *item.key


def _refuse_duplicates(predictions: Sequence[Prediction]) -> None:
    twice = [key for key, count in Counter(map(_key, predictions)).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} questions are answered twice by one model, such as {twice[0]} (model, specialty, "
            "question, guideline, sample); were two evaluations appended to one file?"
        )


def refuse_different_questions(predictions: Iterable[Prediction]) -> None:
    """Make sure that the models of a column answered the same questions, with the same options and right answer.

    Raises:
        ValueError: two of them did not; names them.
    """
    columns: dict[str, dict[str, Counter]] = {}
    for item in predictions:
        models = columns.setdefault(item.specialty, {})
        models.setdefault(item.model, Counter())[item.question_id, item.options, item.gold] += 1
    for specialty, asked in columns.items():
        first = next(iter(asked))
        for model, questions in asked.items():
            if questions != asked[first]:
                raise ValueError(
                    f"specialty {specialty!r}: models {first!r} and {model!r} were asked different questions "
                    f"({(asked[first] - questions).total()} only the former, {(questions - asked[first]).total()} only "
                    "the latter, order of options included); evaluate both on the same split with the same seed"
                )
