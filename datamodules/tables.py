"""Rows of CSV and TSV, read on behind whatever is damaged.

A row is a record as RFC 4180 has it, with the number of columns of the header; empty lines are none. What is no such
record counts line by line, and reading goes on with the next line: a line that begins a record of the header's width is
a row again. So an opening quote that is never closed costs its line. A record over several lines whose quoted field
holds nothing but whole rows is one where a quote is not closed either: its first line is bad, the others are read.
Empty fields that a spreadsheet writes behind the last column of a row, or leaves out behind the last named one, and
whole rows of them, change no row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from datamodules.decoding import Encoding, foreign
from datamodules.rows import Fault, Record
from datamodules.spelling import bare

DELIMITERS = ",;\t|"
LONGEST_FIELD = 2**31 - 1
"""Characters; the csv module's own limit of 131,072 would end the file at a long trace."""


def table_rows(text: str, name: str, encoding: Encoding = "utf-8", damaged: bool = False) -> Iterator[Record | Fault]:
    """Records under a header; fields may hold line breaks.

    Args:
        text: of the whole file.
        name: of the file in messages.
        encoding: that it was read in, for messages.
        damaged: whether it holds bytes that belong to no character.
    """
    lines = list(io.StringIO(text, newline=""))
    start = next((i for i, line in enumerate(lines) if line.strip("\r\n")), len(lines))
    delimiter = delimiter_of(lines[start]) if start < len(lines) else ","
    if lines and lines[start:] and lines[start].lower().startswith("sep="):  # how spreadsheets name it
        delimiter, start = lines[start][4:5] or ",", start + 1
    header = next(records(lines, start, delimiter, 0), None)
    if header is None:
        return
    _, end, fields = header
    columns = [bare(column) for column in fields] if isinstance(fields, list) else []
    least = max((place for place, column in enumerate(columns, 1) if column), default=0)
    if problem := header_problem(columns, fields, foreign(lines[start], encoding)):
        below = sum(1 for _ in records(lines, end, delimiter, len(columns)))
        yield Fault(name, 0, f"line {start + 1}: {problem}", below, unread=True)
        return
    for row, (begin, behind, fields) in enumerate(records(lines, end, delimiter, len(columns), least), 1):
        strange = foreign("".join(lines[begin:behind]), encoding) if damaged else ""
        if strange:
            yield Fault(name, row, f"line {begin + 1}: {strange}")
        elif isinstance(fields, str):
            yield Fault(name, row, f"line {begin + 1}: {fields}")
        else:
            yield Record(name, row, {key: value for key, value in zip(columns, fields, strict=True) if key})


def delimiter_of(header: str) -> str:
    """What separates the columns: the character that gives a header line the most of them, a comma before others."""
    widths = [len(next_of(csv.reader([header], delimiter=delimiter)) or ()) for delimiter in DELIMITERS]
    return DELIMITERS[widths.index(max(widths))]


def header_problem(columns: Sequence[str], fields: Sequence[str] | str, strange: str) -> str:
    """Why no row under this header can be read; empty where they can."""
    if isinstance(fields, str):
        return f"the header {fields}"
    if strange:
        return f"the header: {strange}"
    named = [column for column in columns if column]
    repeated = sorted({column for column in named if named.count(column) > 1})
    if repeated:
        return f"the header names {', '.join(map(repr, repeated))} twice, and only one of them can be meant"
    return "" if named else "the header names no column"


def records(
    lines: Sequence[str], start: int, delimiter: str, width: int, least: int = 0
) -> Iterator[tuple[int, int, list[str] | str]]:
    """(first line, line behind, fields or what is wrong) of every record from a line on.

    Args:
        lines: of the file, with their ends.
        start: the first of them.
        delimiter: between fields.
        width: fields of a sound record; 0 takes any number.
        least: of them up to the last column that has a name; 0 takes no fewer than `width`.
    """
    position = start
    while position < len(lines):
        begun = position
        reader = csv.reader((lines[i] for i in range(begun, len(lines))), delimiter=delimiter, strict=True)
        try:
            while (fields := next_of(reader)) is not None:
                begin, position = position, begun + reader.line_num
                fields = fitted(fields, width, least or width) if position - begin == 1 else fields
                wrong = "" if not fields or not width else wrong_shape(lines, begin, position, fields, delimiter, width)
                if wrong and position - begin > 1:  # a quote may have taken rows in: each line gets its chance
                    position = begin + 1
                    yield begin, position, wrong
                    break
                if fields:
                    yield begin, position, wrong or fields
        except csv.Error as error:
            begin, position = position, position + 1
            yield begin, position, f"is no record ({error}); is a quote not closed, or not doubled?"


def next_of(reader: Iterator[list[str]]) -> list[str] | None:
    """The next record, None at the end; fields may be of any length."""
    limit = csv.field_size_limit(LONGEST_FIELD)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(limit)


def fitted(fields: list[str], width: int, least: int) -> list[str]:
    """A record of one line without empty fields too many, and with those that stand for nothing; else as it is.

    Examples:
        >>> fitted(["a", "b", ""], 2, 2), fitted(["a"], 2, 1), fitted(["", ""], 3, 3), fitted(["a"], 2, 2)
        (['a', 'b'], ['a', ''], ['', '', ''], ['a'])
    """
    blank = bool(fields) and not any(fields)
    if len(fields) > width and not any(fields[width:]):
        return fields[:width]
    return fields + [""] * (width - len(fields)) if blank or len(fields) >= least else fields


def wrong_shape(lines: Sequence[str], begin: int, end: int, fields: Sequence[str], delimiter: str, width: int) -> str:
    """What is wrong with a record that the csv module took; empty where nothing is."""
    if len(fields) != width:
        return f"has {len(fields)} fields, and the header has {width}"
    inner = lines[begin + 1 : end - 1]
    likely = width > 3 or len(inner) > 1  # a sentence with two commas is no row
    if inner and likely and all(ending(line) == ending(lines[0]) for line in inner):
        shapes = [next_of(csv.reader([line], delimiter=delimiter)) or () for line in inner]
        if all(len(shape) == width for shape in shapes):
            return f"has a quoted field that holds {len(inner)} whole rows; is its quote not closed?"
    return ""


def ending(line: str) -> str:
    """How a line ends: writers end rows alike, and often otherwise than lines within a field."""
    return "\r\n" if line.endswith("\r\n") else line[-1:]
