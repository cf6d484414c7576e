"""Which column of a table holds what, and a row's question, options, answer and chains by it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from datamodules.batch import LETTERS, BadExampleError
from datamodules.cells import Cells, written_list
from datamodules.labelled import labelled
from datamodules.options import agreed, chosen, lettered, mark_of, named
from datamodules.prompts import NEUTRAL
from datamodules.rows import shortened
from guards.ranges import Ranged

AnswerKind = Literal["letter", "text", "index_from_0", "index_from_1"]
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""How people call a split -> its name."""


@dataclass(frozen=True)
class Columns(Ranged):
    """Names of columns; an empty one is not there."""

    question: str = "question"
    """The column of the stem; where it is empty, `ask` of the set is asked of every row."""
    answer: str = "answer"
    """The column of the right answer, in the form that `answer_as` says."""
    options: tuple[str, ...] = ()
    """Several columns, one option in each; or one, that holds a list (JSON or Python), texts behind letters or numbers
    (`A) lung B) liver`), or texts with `separator` between them. The question's own column does where they stand in it.
    None: `choices` of the set, or an open question."""
    images: tuple[str, ...] = ()
    """The columns with names of picture files, in the order shown; one cell may name several."""
    patient: str = ""
    """The column that tells patients apart. Without it a picture stands for its patient, a row without one for
    a patient of its own. If a patient has several pictures, train and test then share patients."""
    id: str = ""
    """The column that tells rows apart; empty takes file and row."""
    reasoning: dict[str, str] = field(default_factory=dict)
    """Guideline -> column of its worked chain; `neutral` for a chain that follows none."""
    guideline: str = ""
    """The column of the guideline that a row's chain follows, where `reasoning` has one column for all of them."""
    split: str = ""
    """The column that holds train, val or test; empty, or an empty cell, splits by patients."""
    tags: dict[str, str] = field(default_factory=dict)
    """Attribute -> column, to break results down by, such as {question_type: type, modality: modality}."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.answer:
            raise ValueError("answer must name the column of the right answer")
        if self.guideline and len(self.reasoning) != 1:
            raise ValueError(
                "guideline names the column of each row's guideline, so that reasoning has one column of chains; "
                f"it has {len(self.reasoning)}"
            )

    def named(self) -> Iterator[str]:
        """Every column that the mapping names."""
        single = (self.question, self.answer, self.patient, self.id, self.guideline, self.split)
        yield from filter(None, (*single, *self.options, *self.images, *self.reasoning.values(), *self.tags.values()))


def stem_and_choices(cells: Cells, columns: Columns, ask: str, separator: str) -> tuple[str, dict[str, str]]:
    """The question, and letter -> option of those that the row itself has; letters are those of the columns.

    Raises:
        BadExampleError: either is in none of the forms.
    """
    if columns.options == (columns.question,) and columns.question:
        return labelled(cells.text(columns.question))
    stem = cells.text(columns.question) if columns.question else ask
    if len(columns.options) != 1:
        texts = [cells.text(name, "") for name in columns.options]
        if any(texts[len(LETTERS) :]):
            raise BadExampleError(f"has {sum(map(bool, texts))} options, expected at most {len(LETTERS)}")
        return stem, {letter: text for letter, text in zip(LETTERS, texts, strict=False) if text}
    (column,) = columns.options
    value = cells.value(column)
    return stem, {} if value is None else listed(value, column, separator)


def listed(value: Any, column: str, separator: str) -> dict[str, str]:
    """Options out of one cell.

    Args:
        value: of it.
        column: its name.
        separator: between the texts of a cell that is neither a list nor marked; empty where there is none.

    Raises:
        BadExampleError: it is in none of the forms.
    """
    found = written_list(value) if isinstance(value, str) else value
    if isinstance(found, list | dict):
        return lettered(as_texts(found))
    if not isinstance(value, str):
        raise BadExampleError(f"{column} is {shortened(value)}, expected options")
    if separator and separator in value:
        return lettered([one.strip() for one in value.strip(separator + " ").split(separator)])
    try:
        before, options = labelled(value)
    except BadExampleError as error:
        hint = "a list, A) … B) …, or set `separator` to what stands between them"
        raise BadExampleError(f"{column} is {shortened(value, 200)}, expected {hint} ({error})") from error
    if before:
        raise BadExampleError(
            f"{column} is {shortened(value, 200)}: what is {shortened(before)} before the first mark?"
        )
    return lettered(options)


def as_texts(found: Any) -> Any:
    """A list or a mapping with its numbers as texts, without what is null: Arrow gives every row all rows' keys."""
    if isinstance(found, dict):
        found = {key: value for key, value in found.items() if value is not None}
        return {str(key).upper() if len(str(key)) == 1 else key: as_text(value) for key, value in found.items()}
    last = max((place for place, one in enumerate(found, 1) if one is not None), default=0)
    return [as_texts(one) if isinstance(one, dict) else as_text(one) for one in found[:last]]


def as_text(value: Any) -> Any:
    """A number as a text; anything else as it is."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def right_option(cells: Cells, column: str, options: Mapping[str, str], kind: AnswerKind) -> str:
    """The text of the right option.

    Args:
        cells: of the row.
        column: of the answer.
        options: letter -> text.
        kind: how the answer is given.

    Raises:
        BadExampleError: no option has that letter, text or number, or the cell says two things.
    """
    text = cells.whole(cells.text(column), column) if kind != "text" else cells.text(column)
    if kind == "text":
        return named_or_equal(text, list(options.values()))
    if kind == "letter":
        return by_letter(text, column, options)
    first = int(kind[-1])
    if not text.isdecimal() or not text.isascii():
        raise BadExampleError(f"{column} is {shortened(text)}, expected a number that counts the options ({kind})")
    place = int(text[:6]) - first
    if not 0 <= place < len(LETTERS) or LETTERS[place] not in options:
        known = ", ".join(str(LETTERS.index(letter) + first) for letter in options)
        raise BadExampleError(f"{column} is {text}, and there are the options {known} ({kind})")
    return options[LETTERS[place]]


def by_letter(text: str, column: str, options: Mapping[str, str]) -> str:
    """The option of a letter, bare or marked: `b`, `B.`, `(B)`, `B) liver`; errors as of `right_option`."""
    if len(text) == 1:
        if text.isdecimal():
            kinds = "answer_as: index_from_0 or index_from_1"
            raise BadExampleError(f"{column} is {text}, expected a letter; if it counts the options, set {kinds}")
        return chosen(text, options)
    letter, _, behind = mark_of(text if text[-1:] != "." else f"{text} ")
    if not letter:
        hint = "; set answer_as: text if answers are spelled out"
        raise BadExampleError(f"{column} is {shortened(text)}, expected a letter {', '.join(options)}{hint}")
    answer = chosen(letter, options)
    return agreed(column, behind, answer, options, f"{column} {letter!r}") if behind else answer


def named_or_equal(text: str, options: list[str]) -> str:
    """The option that a text is, or that is the same number; errors as of `right_option`."""
    equal = [option for option in options if number(option) is not None and number(option) == number(text)]
    if text not in options and len(equal) == 1:
        return equal[0]
    letter, _, behind = mark_of(text)
    if letter and behind in options and text not in options:
        return agreed("answer", text, behind, dict(zip(LETTERS, options, strict=False)), f"the answer {text!r}")
    return named(text, options)


def number(text: str) -> float | None:
    """The number that a text is."""
    try:
        return float(text) if len(text) < 40 and text.isascii() else None
    except ValueError:
        return None


def chains(cells: Cells, columns: Columns) -> dict[str, str]:
    """Guideline -> worked chain, of those that the row has.

    Raises:
        BadExampleError: a chain has no guideline where a column should say it.
    """
    found = {name: cells.text(column, "") for name, column in columns.reasoning.items()}
    if columns.guideline and any(found.values()):
        said = "_".join(cells.text(columns.guideline).casefold().split())
        found = {said: next(iter(found.values()))}
    return {name: text for name, text in found.items() if text}


def split_of(cells: Cells, column: str, allowed: Collection[str] = tuple(SPLIT_NAMES)) -> str:
    """The split that a row names; empty where it names none.

    Raises:
        BadExampleError: it is none of the usual names.
    """
    text = cells.text(column, "").casefold()
    if text and text not in SPLIT_NAMES:
        raise BadExampleError(f"{column} is {shortened(text)}, expected one of {', '.join(allowed)}")
    return SPLIT_NAMES.get(text, "")


def answer_alone(answer: str) -> dict[str, str]:
    """What is taught of a row without a worked chain: its conclusion, under the neutral prompt."""
    return {NEUTRAL: f"so the answer is {answer.rstrip('.')}."}
