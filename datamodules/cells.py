"""Cells of spreadsheets and of other rows as texts, with a count of what had to be assumed about them.

A spreadsheet writes the number 3 as `3.0` once its column has a gap, protects texts as `="007"`, leaves its own errors
(`#REF!`) in place of values, and shortens long numbers to `1.23E+11`, whose digits are lost. The first two are read as
what they stand for, the others are refused. Files with types have dates, truth values and decimal numbers, which are
read as a spreadsheet of them would be: `2024-05-01`, `true`, `3.5`.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from datamodules.batch import BadExampleError
from datamodules.rows import Record, clean_text, shortened
from datamodules.spelling import bare

ERROR = re.compile(r"#(?:N/A|N/D|N/B|NV|I/T|GETTING_DATA|[¡¿]?[^\W\d_a-z][^\Wa-z]*(?:/0)?[!?])")
"""What spreadsheets write where a formula has no value, in whatever language: `#REF!`, `#BEZUG!`, `#¿NOMBRE?`."""
PROTECTED = re.compile(r'="(.*)"', re.DOTALL)
WHOLE = re.compile(r"([-+]?\d+)[.,]0{1,2}")
"""A whole number with an empty fraction; of three zeros nobody knows whether they are thousands."""
SHORTENED = re.compile(r"[-+]?\d(?:[.,]\d+)?[eE]\+\d+")
SEVERAL = re.compile(r"\s*[;|\n]\s*")
"""Between the names of several pictures in one cell."""
MOST = 100_000
"""Characters of a list that is written out."""


class Cells:
    """The cells of one row by column.

    Attributes:
        record: the row.
        assumed: counts what was assumed, by its description; shared by all rows of a set.
    """

    def __init__(self, record: Record, assumed: Counter[str]) -> None:
        self.record, self.assumed = record, assumed

    def value(self, column: str) -> Any:
        """What stands in a column: a clean text, a list, a mapping or a picture; None where nothing does.

        Raises:
            BadExampleError: a spreadsheet's error stands there.
        """
        value = self.record.fields.get(column)
        if value is None or (isinstance(value, float | Decimal) and math.isnan(value)):
            return None
        if isinstance(value, float | Decimal) and value % 1 == 0:
            self.assume(column, "numbers such as 3.0 are whole")
            return str(int(value))
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, date | time) or (isinstance(value, int | float | Decimal) and math.isfinite(value)):
            return str(value).removesuffix(" 00:00:00")
        return self.unwrapped(value, column) or None if isinstance(value, str) else value

    def unwrapped(self, text: str, column: str) -> str:
        """A text as it was meant; errors as of `value`."""
        text = clean_text(text, column)
        if found := PROTECTED.fullmatch(text):
            self.assume(column, 'cells such as ="007" are the text between the quotes')
            text = bare(found[1].replace('""', '"'))
        if ERROR.fullmatch(text):
            raise BadExampleError(f"{column} is the spreadsheet's error {text}; mend its formula and export again")
        return text

    def assume(self, column: str, what: str) -> None:
        """Count one more cell of which something was assumed."""
        self.assumed[f"column {column!r}: {what}"] += 1

    def text(self, column: str, default: str | None = None) -> str:
        """A text.

        Raises:
            BadExampleError: it is missing and there is no default, or something else stands there.
        """
        value = self.value(column)
        if value is None and default is not None:
            return default
        if value is None:
            raise BadExampleError(f"{column} is missing or empty; the row has {sorted(self.record.fields)}")
        if callable(value):
            raise BadExampleError(f"{column} holds a picture, or bytes that are no text, expected text")
        if not isinstance(value, str):
            raise BadExampleError(f"{column} is {shortened(value)}, expected text")
        return value

    def name(self, column: str, default: str | None = None) -> str:
        """A text that tells things apart, such as a patient's number; whole numbers lose their `.0`.

        Raises:
            BadExampleError: as `text`, or a spreadsheet has shortened a long number, so that its digits are lost.
        """
        text = self.text(column, default)
        if SHORTENED.fullmatch(text):
            raise BadExampleError(
                f"{column} is {text}: a spreadsheet has shortened a long number, and its digits are lost; format the "
                "column as text and export again"
            )
        return self.whole(text, column)

    def whole(self, text: str, column: str) -> str:
        """A number such as `3.0` as `3`; any other text as it is."""
        found = WHOLE.fullmatch(text)
        if not found:
            return text
        self.assume(column, "numbers such as 3.0 are whole")
        return found[1].removeprefix("+")


def absent(column: str, fields: Mapping[str, Any]) -> str:
    """Says that there is no such column."""
    near = get_close_matches(column, fields, 1, 0.7)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no column {column!r}; there are {', '.join(map(repr, fields))}{hint}"


def written_list(text: str) -> Any:
    """A list or a mapping that a cell spells out, as JSON or as Python prints it; None where it spells none.

    Examples:
        >>> written_list('["lung", "liver"]'), written_list("['lung', 'liver']"), written_list("lung")
        (['lung', 'liver'], ['lung', 'liver'], None)
    """
    if text[:1] not in ("[", "{") or len(text) > MOST:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | dict):
            return found
    return None
