"""What models keep of the base's own questions: a column beside the specialties, which no mean and no gate counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.paired import PairedDifference, paired_difference
from evaluation.predictions import Prediction, read_predictions
from evaluation.scorers import main_outcome
from evaluation.scoring import Score, matrix

KEPT = "kept"
"""Name of the column."""
FILE = "kept.jsonl"
"""Beside predictions.jsonl: the answers to the base's own questions."""
BASE = "base"
"""Row of the matrix that the others are compared with."""


@dataclass(frozen=True)
class Kept:
    """One model on the base's own questions.

    Attributes:
        score: of the model.
        difference: its accuracy minus the base's, paired and by patient; None for the base itself.
    """

    score: Score
    difference: PairedDifference | None


def kept_column(predictions: Sequence[Prediction]) -> dict[str, Kept]:
    """Score every model on the base's own questions, next to the base.

    Args:
        predictions: of all models, the base's among them; none gives no column.

    Raises:
        ValueError: models were asked different questions, or the base was not asked.
    """
    if not predictions:
        return {}
    rows = {row.model: row.cells[KEPT] for row in matrix(predictions)}
    if BASE not in rows:
        raise ValueError(f"{FILE}: has no answers of {BASE!r}, with which all others are compared")
    answers = answers_of(predictions)
    return {
        model: Kept(one, None if model == BASE else difference(answers[BASE], answers[model]))
        for model, one in rows.items()
    }


def answers_of(predictions: Sequence[Prediction]) -> dict[str, dict[tuple, Prediction]]:
    """Model -> key -> its answer."""
    found: dict[str, dict[tuple, Prediction]] = {}
    for item in predictions:
        found.setdefault(item.model, {})[item.key] = item
    return found


def difference(base: Mapping[tuple, Prediction], model: Mapping[tuple, Prediction]) -> PairedDifference:
    """A model's accuracy minus the base's, on the same questions."""
    right = [[main_outcome(side[key]).right for key in base] for side in (base, model)]
    return paired_difference(*right, [item.patient_id for item in base.values()])


def read_kept(path: Path) -> list[Prediction]:
    """The answers to the base's own questions beside an experiment's predictions; none where none were asked.

    Args:
        path: as of `evaluation.predictions.read_predictions`.

    Raises:
        ValueError: a line is malformed.
    """
    folders = [path.parent] if path.suffix == ".jsonl" else [path / "evaluation", path]
    file = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    return [] if file is None else read_predictions(file)
