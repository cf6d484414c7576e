"""A row of a data file, the place it stands at, and why it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datamodules.batch import BadExampleError
from datamodules.spelling import bare


@dataclass(frozen=True)
class Fault:
    """Why a row cannot be used, or what of a file was not read.

    Attributes:
        file: relative to the data set's root.
        row: counts from 1: the line of JSON lines, the entry of a list, the record under a CSV's header; 0 is the file.
        reason: names the value and what was expected.
        rows: rows that it stands for; 0 where the file is damaged and no row of it is lost.
        unread: nobody can say what these rows hold, or whether the file is whole; no setting leaves them out.
    """

    file: str
    row: int
    reason: str
    rows: int = 1
    unread: bool = False

    def __str__(self) -> str:
        """`MM/test.jsonl, row 7: label is 'F', expected …`."""
        return f"{self.file}, row {self.row}: {self.reason}" if self.row else f"{self.file}: {self.reason}"


@dataclass(frozen=True)
class RowCount:
    """What became of the rows of one file: read + left out + unread = all of them.

    Attributes:
        read: rows that are questions.
        bad: rows that cannot be used.
        not_asked: sound rows that the settings, or another split, leave out.
        unread: rows of which nobody can say what they hold.
    """

    read: int = 0
    bad: int = 0
    not_asked: int = 0
    unread: int = 0

    @property
    def left_out(self) -> int:
        """Rows that were looked at and are no questions here."""
        return self.bad + self.not_asked

    @property
    def rows(self) -> int:
        """All rows of the file."""
        return self.read + self.left_out + self.unread

    def __add__(self, other: RowCount) -> RowCount:
        """Both together."""
        return RowCount(
            self.read + other.read,
            self.bad + other.bad,
            self.not_asked + other.not_asked,
            self.unread + other.unread,
        )

    def __str__(self) -> str:
        """`97 read + 3 left out (2 bad, 1 not asked for) + 0 unread = 100 rows`."""
        parts = f"{self.bad} bad, {self.not_asked} not asked for"
        return f"{self.read} read + {self.left_out} left out ({parts}) + {self.unread} unread = {self.rows} rows"


@dataclass(frozen=True)
class Record:
    """One row as it was read; `file` and `row` are those of `Fault`."""

    file: str
    row: int
    fields: Mapping[str, Any]

    def get(self, *names: str) -> Any:
        """The first of the fields that is there and not empty, else None; several names are spellings of one field.

        A text of spaces and invisible characters is empty.
        """
        for value in map(self.fields.get, names):
            if bare(value) if isinstance(value, str) else value is not None:
                return value
        return None

    def text(self, *names: str, default: str | None = None) -> str:
        """A text field without surrounding space; a whole number counts as text.

        Raises:
            BadExampleError: it is missing (and there is no default), is no text, or holds half a surrogate pair, which
                no tokenizer and no file takes.
        """
        value = self.get(*names)
        if value is None and default is not None:
            return default
        if value is None:
            raise BadExampleError(f"{' or '.join(names)} is missing or empty; the row has {sorted(self.fields)}")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise BadExampleError(f"{names[0]} is {shortened(value)}, expected text")
        return clean_text(str(value), names[0])

    def texts(self, *names: str) -> list[str]:
        """A list of texts; one text counts as a list of one, a missing field as none.

        Raises:
            BadExampleError: something else stands there.
        """
        value = self.get(*names)
        held = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(held, list) or not all(isinstance(item, str) for item in held):
            raise BadExampleError(f"{names[0]} is {shortened(value)}, expected a list of texts")
        return [clean_text(item, names[0]) for item in held]


def clean_text(text: str, name: str) -> str:
    """The text without surrounding space and invisible characters.

    Raises:
        BadExampleError: it cannot be written as UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadExampleError(f"{name} holds half a surrogate pair: {shortened(text)}") from error
    return bare(text)


def shortened(value: Any, length: int = 80) -> str:
    """A value for a message: never a whole record."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; a whole number of thousands of digits
        text = f"a {type(value).__name__} that is too deep or too long to show"
    return text if len(text) <= length else f"{text[:length]}…"
