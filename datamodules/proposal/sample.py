"""A table as it is looked at before anybody has said what its columns hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from datamodules.batch import BadExampleError
from datamodules.cells import Cells
from datamodules.decoding import MARKS, Encoding
from datamodules.embedded import saved_rows
from datamodules.readers import SUFFIXES, read_rows
from datamodules.rows import Fault, Record

TEXT = (".csv", ".tsv", ".json", ".jsonl")
MOST_ROWS = 20_000
"""Rows that are looked at; a mapping that fits so many is right."""


@dataclass(frozen=True)
class Sample:
    """Rows of a table.

    Attributes:
        path: of the file, or of a folder that `datasets` saved.
        encoding: in which it was read.
        rows: those that could be read, without empty ones.
        faults: what could not be read.
        said: what was found out about the file, a sentence each.
    """

    path: Path
    encoding: Encoding
    rows: Sequence[Record]
    faults: Sequence[Fault] = ()
    said: Sequence[str] = field(default_factory=list)

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """Column -> its values by row, None where a cell is empty or holds an error."""
        names = dict.fromkeys(name for row in self.rows for name in row.fields)
        return {name: [value(row, name) for row in self.rows] for name in names}

    def filled(self, column: str) -> list[Any]:
        """The values of a column that are there."""
        return [one for one in self.columns[column] if one is not None]

    def texts(self, column: str) -> list[str]:
        """Those that are texts."""
        return [one for one in self.filled(column) if isinstance(one, str)]


def value(row: Record, column: str) -> Any:
    """What stands in a cell; None where nothing usable does."""
    try:
        return Cells(row, Counter()).value(column)
    except BadExampleError:
        return None


def sample_of(path: Path) -> Sample:
    """Read a table.

    Raises:
        BadExampleError: it is no such file, or no row of it can be read; says why.
    """
    if path.is_dir():
        return with_rows(path, "utf-8", list(saved_rows(path, path.name)), ["a folder that `datasets` saved"])
    if path.suffix not in (*SUFFIXES, ".parquet"):
        raise BadExampleError(
            f"{path}: expected a file that ends in {', '.join(SUFFIXES)} or .parquet, or a folder that `datasets` "
            "saved; export a spreadsheet as CSV (UTF-8)"
        )
    encoding, said = encoding_of(path) if path.suffix in TEXT else ("utf-8", [])
    return with_rows(path, encoding, list(read_rows(path, path.parent, encoding)), said)


def with_rows(path: Path, encoding: Encoding, read: Sequence[Record | Fault], said: list[str]) -> Sample:
    """The sample of what was read; errors as of `sample_of`."""
    rows = [row for row in read if isinstance(row, Record) and any(row.get(name) is not None for name in row.fields)]
    faults = [row for row in read if isinstance(row, Fault)]
    if not rows:
        raise BadExampleError(f"no row of {path} can be read: {faults[0] if faults else 'all are empty'}")
    return Sample(path, encoding, rows[:MOST_ROWS], faults, said)


def encoding_of(path: Path) -> tuple[Encoding, list[str]]:
    """The encoding of a text file, and a sentence about it where it is no plain UTF-8.

    Raises:
        BadExampleError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadExampleError(f"{path}: cannot be read: {error}") from error
    marked = next((name for mark, name in MARKS if content.startswith(mark)), "")
    if marked:
        return "utf-8", [f"a byte order mark says {marked}"]
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return "cp1252", [f"line {line} is no UTF-8, so that it is read as cp1252, which older spreadsheets write"]
    return "utf-8", []


def share(values: Sequence[Any], holds: Any) -> float:
    """Of values for which something holds; 0 of none."""
    return sum(bool(holds(one)) for one in values) / len(values) if values else 0.0


def distinct(values: Sequence[Any]) -> Mapping[Any, int]:
    """Each text with how often it occurs, the commonest first."""
    return dict(Counter(str(one) for one in values).most_common())
