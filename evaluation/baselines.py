"""What a score is worth: what one letter for every question scores, and what the model scores without a picture."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from evaluation.detectable import smallest_told
from evaluation.open_answers import normal_answer
from evaluation.predictions import Prediction, by_variant
from evaluation.scorers import Outcome, main_outcome

FILE = "training_answers.json"
"""Beside the predictions: specialty -> how often which answer is right in its training rows."""
NO_PICTURE = "image=none"
"""The variant of `evaluation.predictions.by_variant` that is asked without a picture."""
SETTING = "callbacks.evaluate.init_args.image=[shown,none]"
NOT_MEASURED = f"not measured: {SETTING}"

Answers = Mapping[str, Mapping[str, int]]
"""Specialty -> "A", or a text of a question without options, normalised and led by "=" -> rows in which it is right."""


class Asked(Protocol):
    """What of a question the count needs."""

    options: Sequence[str]
    answer: str

    @property
    def letter(self) -> str:
        """The right option's letter, where there are options."""


def answer_counts(questions: Iterable[Asked]) -> dict[str, int]:
    """How often which letter, or which text where there are no options, is right; in alphabetical order."""
    counts = Counter(q.letter if q.options else f"={normal_answer(q.answer)}" for q in questions)
    return dict(sorted(counts.items()))


@dataclass(frozen=True)
class Majority:
    """What the same answer to every question scores.

    Attributes:
        share: of the questions, a fraction.
        answers: the letter, and for questions without options the text.
        from_training: whether they were chosen on training rows; else on the questions themselves, which no model that
            had not seen their answers could do: an upper bound.
    """

    share: float
    answers: tuple[str, ...]
    from_training: bool

    def __str__(self) -> str:
        """Percent, answer and, where it is one, that this is an upper bound."""
        told = " and ".join(answer.removeprefix("=") for answer in self.answers)
        return f"{'' if self.from_training else '≤ '}{100 * self.share:.1f}{f' ({told})' if told else ''}"


def majority(items: Sequence[Prediction], training: Mapping[str, int] | None = None) -> Majority:
    """Score the commonest letter, and the commonest text for questions without options.

    Args:
        items: answers of one model to one specialty, at least one; only their right answers count.
        training: how often which answer is right in the training rows of the specialty. Where it is absent, or holds
            none of a kind that is asked, the questions themselves decide.
    """
    golds = [item.answer_letter or f"={normal_answer(item.answer)}" for item in items]
    answers, learned = [], True
    for kind in (False, True):
        asked = Counter(gold for gold in golds if gold.startswith("=") == kind)
        known = {answer: count for answer, count in (training or {}).items() if answer.startswith("=") == kind}
        if asked:
            learned &= bool(known)
            answers.append(_commonest(known or asked))
    return Majority(sum(gold in answers for gold in golds) / len(golds), tuple(answers), learned)


def together(found: Sequence[Majority], weights: Sequence[float]) -> Majority:
    """The mean over specialties, each with its own answer; those are shown only where there is one specialty."""
    share = sum(one.share * weight for one, weight in zip(found, weights, strict=True)) / sum(weights)
    return Majority(share, found[0].answers if len(found) == 1 else (), all(one.from_training for one in found))


def without_picture(
    predictions: Sequence[Prediction], outcome: Callable[[Prediction], Outcome] = main_outcome
) -> dict[str, dict[str, dict[tuple, bool]]]:
    """Model -> specialty -> key -> whether it is right without a picture, of the models that were asked so.

    A question that has no picture is not asked again, and counts as it was answered.

    Args:
        predictions: of any number of models.
        outcome: the scorer.
    """
    ways = by_variant(predictions)
    main, blind = ways[""], {(item.model, *item.key): item for item in ways.get(NO_PICTURE, [])}
    asked = {model for model, *_ in blind}
    found: dict[str, dict[str, dict[tuple, bool]]] = {}
    for item in main:
        if item.model in asked or item.protocol.get("image") == "none":
            right = outcome(blind.get((item.model, *item.key), item)).right
            found.setdefault(item.model, {}).setdefault(item.specialty, {})[item.key] = right
    return found


@dataclass(frozen=True)
class Line:
    """A line below a matrix.

    Attributes:
        name: in the place of a model's.
        told: specialty -> cell for reading.
        shares: specialty -> the score as a fraction; empty where the line holds no scores.
    """

    name: str
    told: Mapping[str, str]
    shares: Mapping[str, float] = field(default_factory=dict)


def lines_below(predictions: Sequence[Prediction], training: Answers) -> list[Line]:
    """What stands below the matrix of an experiment: one letter, models without a picture, the visible difference.

    Args:
        predictions: all of an experiment, the main way first.
        training: how often which answer is right in the training rows.
    """
    columns: dict[str, list[Prediction]] = {}
    whose: dict[str, str] = {}
    for item in by_variant(predictions)[""]:
        if whose.setdefault(item.specialty, item.model) == item.model:  # every model of a column has its questions
            columns.setdefault(item.specialty, []).append(item)
    letters = {name: majority(items, training.get(name)) for name, items in columns.items()}
    found = [Line("one letter", {n: str(m) for n, m in letters.items()}, {n: m.share for n, m in letters.items()})]
    blind = without_picture(predictions)
    for model, parts in blind.items():
        shares = {name: sum(right.values()) / len(right) for name, right in parts.items()}
        told = {name: f"{100 * share:.1f}" for name, share in shares.items()}
        found.append(Line(f"{model}, no picture", told, shares))
    if not blind:
        found.append(Line("no picture", dict.fromkeys(columns, "not measured")))
    visible = {
        name: smallest_told(len({i.question_id for i in items}), len({i.patient_id for i in items}))
        for name, items in columns.items()
    }
    return [*found, Line("visible, points", visible)]


def read_training_answers(path: Path) -> Answers:
    """The counts beside an experiment's predictions; empty where none were written.

    Args:
        path: as of `evaluation.predictions.read_predictions`.

    Raises:
        ValueError: the file holds something else.
    """
    folders = [path.parent] if path.suffix == ".jsonl" else [path / "evaluation", path]
    file = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    if file is None:
        return {}
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        counts = [count for answers in held.values() for count in answers.values()]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file}: not a JSON object of specialties and counts ({error}); remove it") from error
    if not all(type(count) is int and count > 0 for count in counts):
        raise ValueError(f"{file}: a count is not a whole number above 0; remove the file")
    return held


def _commonest(counts: Mapping[str, int]) -> str:
    """The answer of the largest count; among equals the first in the alphabet."""
    return min(counts, key=lambda answer: (-counts[answer], answer))
