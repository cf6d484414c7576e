"""What a model answered, how many of its answers are right, and the matrix of models by specialties."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from evaluation.answers import LETTERS, extract
from evaluation.statistics import wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERSION = "1"
"""Changes with the meaning of any number here, so that old and new scores are not compared by accident."""


@dataclass(frozen=True)
class Prediction:
    """One raw completion with all that is needed to score it again.

    Attributes:
        model: name of the row it counts for, such as "base" or "merged/ties".
        specialty: name of the column it counts for.
        question_id: unique within the specialty.
        patient_id: whom the question is about.
        guideline: whose instruction the prompt carried; "neutral" at test time.
        options: the texts in the order shown.
        answer_letter: the right option's letter.
        completion: the text as generated.
        tags: attributes to break results down by.
        n_tokens: length of the completion in tokens.
        truncated: the completion reached the token limit.
    """

    model: str
    specialty: str
    question_id: str
    patient_id: str
    guideline: str
    options: tuple[str, ...]
    answer_letter: str
    completion: str
    tags: Mapping[str, str] = field(default_factory=dict)
    n_tokens: int = 0
    truncated: bool = False

    def __post_init__(self) -> None:
        if not self.answer_letter or self.answer_letter not in LETTERS[: len(self.options)]:
            raise ValueError(
                f"prediction for question {self.question_id!r}: answer_letter {self.answer_letter!r} is not one of "
                f"the {len(self.options)} options' letters"
            )

    def to_json(self) -> str:
        """One line of predictions.jsonl; the keys are the attributes."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str, where: str = "prediction") -> Prediction:
        """Read one line of predictions.jsonl.

        Args:
            line: a JSON object.
            where: file and line for error messages.

        Raises:
            ValueError: not JSON, an unknown or missing key, or a value of the wrong type.
        """
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not a JSON object ({error}); was the file cut off?") from error
        names = {item.name for item in fields(cls)}
        optional = {"tags", "n_tokens", "truncated"}
        if not isinstance(row, dict) or set(row) - names or names - set(row) - optional:
            found = sorted(row) if isinstance(row, dict) else type(row).__name__
            raise ValueError(f"{where}: got {found}, expected the keys {sorted(names)}")
        kinds: dict[str, type] = {"options": list, "tags": dict, "n_tokens": int, "truncated": bool}
        for name, value in row.items():
            if type(value) is not kinds.get(name, str):
                raise ValueError(f"{where}: {name} must be a {kinds.get(name, str).__name__}, got {value!r}")
        return cls(**{**row, "options": tuple(row["options"])})


@dataclass(frozen=True)
class Score:
    """Results of one model on one set of questions. Fractions are of n and lie in [0, 1].

    Attributes:
        n: questions.
        correct_strict: right by the strict reading.
        accuracy: correct_strict / n, the main score; what cannot be read counts as wrong.
        low: lower end of its 95 % Wilson interval.
        high: upper end.
        accuracy_lenient: right by the lenient reading; reported beside the main score, never instead of it.
        parse_rate: share that the strict reading can read.
        truncated: share that reached the token limit.
        mean_tokens: mean length of a completion in tokens.
        letters: letter -> (times answered, times right answer), to show a preferred letter.
        reasons: strict reason code -> count.
    """

    n: int
    correct_strict: int
    accuracy: float
    low: float
    high: float
    accuracy_lenient: float
    parse_rate: float
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
        ValueError: no predictions, or two for the same (model, specialty, question, guideline).
    """
    if not predictions:
        raise ValueError("score: no predictions; was the split empty or the filter too narrow?")
    _refuse_duplicates(predictions)
    n = len(predictions)
    strict = [extract(item.completion, item.options) for item in predictions]
    lenient = [extract(item.completion, item.options, "lenient") for item in predictions]
    correct = sum(read.letter == item.answer_letter for read, item in zip(strict, predictions, strict=True))
    correct_lenient = sum(read.letter == item.answer_letter for read, item in zip(lenient, predictions, strict=True))
    given = Counter(read.letter for read in strict)
    gold = Counter(item.answer_letter for item in predictions)
    shown = LETTERS[: max(len(item.options) for item in predictions)]
    return Score(
        n,
        correct,
        correct / n,
        *wilson(correct, n, confidence),
        accuracy_lenient=correct_lenient / n,
        parse_rate=1 - given[None] / n,
        truncated=sum(item.truncated for item in predictions) / n,
        mean_tokens=sum(item.n_tokens for item in predictions) / n,
        letters={letter: (given[letter], gold[letter]) for letter in shown},
        reasons=dict(sorted(Counter(read.reason for read in strict).items())),
    )


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
    found: dict[str, dict[str, list[Prediction]]] = {}
    columns: dict[str, None] = {}
    for item in predictions:
        columns[item.specialty] = None
        found.setdefault(item.model, {}).setdefault(item.specialty, []).append(item)
    if not found:
        raise ValueError("matrix: no predictions")
    for specialty in columns:
        _refuse_different_questions(
            specialty, {model: cells[specialty] for model, cells in found.items() if specialty in cells}
        )
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


def matrix_csv(rows: Sequence[Row]) -> str:
    """The matrix as CSV: per specialty accuracy, low, high, n, lenient accuracy as fractions; then the macro mean."""
    names = ("accuracy", "low", "high", "n", "accuracy_lenient")
    columns = columns_of(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", *(f"{specialty}/{name}" for specialty in columns for name in names), "macro/accuracy"])
    for row in rows:
        values = [
            _number(getattr(row.cells[specialty], name)) if specialty in row.cells else ""
            for specialty in columns
            for name in names
        ]
        writer.writerow([row.model, *values, "" if row.macro is None else _number(row.macro)])
    return out.getvalue()


def matrix_text(rows: Sequence[Row]) -> str:
    """The matrix for a terminal: accuracy in percent with its 95 % interval, n below each specialty's name."""
    columns = columns_of(rows)
    sizes = {s: next(row.cells[s].n for row in rows if s in row.cells) for s in columns}
    table = [["model", *columns, "macro"], ["", *(f"n = {sizes[specialty]}" for specialty in columns), ""]]
    for row in rows:
        cells = [_percent(row.cells[specialty]) if specialty in row.cells else "-" for specialty in columns]
        table.append([row.model, *cells, "-" if row.macro is None else f"{100 * row.macro:.1f}"])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in table
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def matrix_figure(rows: Sequence[Row]) -> Figure:
    """The matrix as a heat map, accuracy in percent with its 95 % interval; drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = columns_of(rows)
    sizes = {s: next(row.cells[s].n for row in rows if s in row.cells) for s in columns}
    figure = Figure(figsize=(2.4 + 1.7 * (len(columns) + 1), 1.4 + 0.55 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    values = [
        [100 * row.cells[s].accuracy if s in row.cells else math.nan for s in columns]
        + [math.nan if row.macro is None else 100 * row.macro]
        for row in rows
    ]
    image = axes.imshow(values, vmin=0, vmax=100, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(columns) + 1), [*(f"{s}\nn = {sizes[s]}" for s in columns), "macro"])
    axes.set_yticks(range(len(rows)), [row.model for row in rows])
    for y, row in enumerate(rows):
        texts = [_percent(row.cells[s]).replace(" [", "\n[") if s in row.cells else "-" for s in columns]
        for x, text in enumerate([*texts, "-" if row.macro is None else f"{100 * row.macro:.1f}"]):
            dark = values[y][x] > 60
            axes.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    figure.colorbar(image, ax=axes, label="accuracy, %")
    return figure


def _percent(cell: Score) -> str:
    return f"{100 * cell.accuracy:.1f} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6f}"


def _key(item: Prediction) -> tuple[Any, ...]:
    return item.model, item.specialty, item.question_id, item.guideline


def _refuse_duplicates(predictions: Sequence[Prediction]) -> None:
    twice = [key for key, count in Counter(map(_key, predictions)).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} questions are answered twice by one model, such as {twice[0]} (model, specialty, "
            "question, guideline); were two evaluations appended to one file?"
        )


def _refuse_different_questions(specialty: str, by_model: Mapping[str, Sequence[Prediction]]) -> None:
    """Every model of a column must have answered the same questions with the same options and the same right letter."""
    asked = {
        model: Counter((item.question_id, item.options, item.answer_letter) for item in items)
        for model, items in by_model.items()
    }
    first = next(iter(asked))
    for model, questions in asked.items():
        if questions != asked[first]:
            raise ValueError(
                f"specialty {specialty!r}: models {first!r} and {model!r} were asked different questions "
                f"({(asked[first] - questions).total()} only the former, {(questions - asked[first]).total()} only the "
                "latter, order of options included); evaluate both on the same split with the same seed"
            )
