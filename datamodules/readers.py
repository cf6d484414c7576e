"""Rows out of files: JSON lines, a JSON list, CSV, TSV, Parquet; what cannot be read is a fault, and is counted.

The rows of a file are the records that can be read, the faults (each stands for `Fault.rows` of them), and nothing
else. `tables.py` and `json_rows.py` say what a row is where a file is damaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datamodules.decoding import Encoding, EncodingError, decoded, decoded_lines, streams
from datamodules.embedded import parquet_rows
from datamodules.json_rows import json_lines, json_list, line_rows
from datamodules.regular import irregular, open_regular
from datamodules.rows import Fault, Record
from datamodules.tables import table_rows

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
"""Of files whose name is exactly that of a split; Parquet comes in shards, `train-00000-of-00001-….parquet`."""


def read_rows(path: Path, root: Path, encoding: Encoding = "utf-8") -> Iterator[Record | Fault]:
    """Every row of a file, and a fault for each that cannot be read; the suffix tells the format.

    Args:
        path: a file; a pipe, a device or a folder is refused, and not waited for.
        root: what names in messages are relative to.
        encoding: of its text, unless a byte order mark says another one.

    Raises:
        BadExampleError: Parquet without the package that reads it.
    """
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    try:
        if found := irregular(path):
            raise OSError(f"is {found}, expected a regular file")
        path.stat()  # a file that is not there is told before a package that is not there
        row = None
        for row in rows_of(path, name, encoding):
            yield row
        if row is None:
            yield Fault(name, 0, "holds no row; was it written, or downloaded, whole?", 0, unread=True)
    except (OSError, EncodingError) as error:
        yield Fault(name, 0, f"cannot be read: {error}", 0, unread=True)


def rows_of(path: Path, name: str, encoding: Encoding) -> Iterator[Record | Fault]:
    """The rows of a regular file; errors as of `read_rows`.

    Raises:
        OSError: it cannot be read.
        EncodingError: it is in another encoding.
    """
    if path.suffix == ".parquet":
        yield from parquet_rows(path, name)
        return
    if path.suffix not in SUFFIXES:
        yield Fault(name, 0, f"has the suffix {path.suffix!r}, none of {', '.join(SUFFIXES)}, .parquet", 0, unread=True)
        return
    with open_regular(path) as file:
        if path.suffix == ".jsonl" and streams(file.read(200), encoding):
            file.seek(0)
            yield from line_rows(decoded_lines(file), name, encoding)
            return
        file.seek(0)
        text, damaged = decoded(file.read(), encoding)
    reader = {".jsonl": json_lines, ".json": json_list}.get(path.suffix, table_rows)
    yield from reader(text, name, encoding, damaged)
