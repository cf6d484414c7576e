"""Rows out of files: JSON lines, a JSON list, CSV, Parquet; what cannot be read becomes a fault of its row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datamodules.embedded import parquet_rows
from datamodules.rows import Fault, Record, shortened

SUFFIXES = (".jsonl", ".json", ".csv")
"""Of files whose name is exactly that of a split; Parquet comes in shards, `train-00000-of-00001-….parquet`."""


def read_rows(path: Path, root: Path) -> Iterator[Record | Fault]:
    """Every row of a file, and a fault for each that cannot be read; the suffix tells the format.

    Args:
        path: a file.
        root: what names in messages are relative to.

    Raises:
        BadExampleError: Parquet without the package that reads it.
    """
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    reader = {".jsonl": json_lines, ".json": json_list, ".csv": csv_rows, ".parquet": parquet_rows}.get(path.suffix)
    if reader is None:
        yield Fault(name, 0, f"cannot be read: the suffix {path.suffix!r} is none of .jsonl, .json, .csv, .parquet")
        return
    try:
        yield from reader(path, name)
    except OSError as error:
        yield Fault(name, 0, f"cannot be read: {error}")


def json_lines(path: Path, name: str) -> Iterator[Record | Fault]:
    """One object per line; empty lines are passed over."""
    with open(path, "rb") as file:
        for row, line in enumerate(file, 1):
            if line.strip():
                yield parsed(line, name, row)


def parsed(line: bytes, name: str, row: int) -> Record | Fault:
    """One line as a row."""
    try:
        return row_of(load_json(line), name, row)
    except (ValueError, RecursionError) as error:
        return Fault(name, row, f"is not JSON ({error}); is the line whole?")


def json_list(path: Path, name: str) -> Iterator[Record | Fault]:
    """One list of objects."""
    try:
        content = load_json(path.read_bytes())
    except (ValueError, RecursionError) as error:
        yield Fault(name, 0, f"is not JSON ({error}); was the file cut off?")
        return
    if not isinstance(content, list):
        yield Fault(name, 0, f"holds {type(content).__name__}, expected a list of objects")
        return
    for row, entry in enumerate(content, 1):
        yield row_of(entry, name, row)


def load_json(content: bytes) -> Any:
    """JSON without repeated keys, of which the last would silently win.

    Raises:
        ValueError: it is none, or is not UTF-8.
        RecursionError: it is nested too deeply.
    """

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise ValueError(f"a key is given twice among {names}")
        return dict(pairs)

    return json.loads(content.decode("utf-8-sig"), object_pairs_hook=unique)


def row_of(entry: Any, name: str, row: int) -> Record | Fault:
    """A parsed entry as a row."""
    return (
        Record(name, row, entry) if isinstance(entry, dict) else Fault(name, row, f"is {shortened(entry)}, no object")
    )


def csv_rows(path: Path, name: str) -> Iterator[Record | Fault]:
    """Records under a header; fields may hold line breaks."""
    row = 0
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            for row, fields in enumerate(reader, 1):
                if None in fields or None in fields.values():
                    yield Fault(name, row, f"has not the {len(reader.fieldnames or ())} fields of the header")
                else:
                    yield Record(name, row, fields)
        except (csv.Error, UnicodeDecodeError) as error:
            yield Fault(name, row + 1, f"is not CSV in UTF-8 ({error}); nothing below it was read")
