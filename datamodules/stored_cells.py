"""Cells as Arrow stores them, of Parquet files and of what `datasets` saved, as the cells that other files have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from datamodules.batch import ImageSource


def class_names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Column -> names of its classes, of those whose numbers stand for names; features as `datasets` writes them."""
    return {
        column: kind["names"]
        for column, kind in features.items()
        if isinstance(kind, dict) and kind.get("_type") == "ClassLabel" and isinstance(kind.get("names"), list)
    }


def written_features(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Any]:
    """What `datasets` wrote into a file about its columns; nothing where another program wrote it."""
    try:
        return dict(json.loads((metadata or {})[b"huggingface"])["info"]["features"])
    except (LookupError, TypeError, ValueError):
        return {}


def plain_cells(
    fields: Mapping[str, Any], names: Mapping[str, Sequence[str]], made: Callable[[str, bytes, int], ImageSource]
) -> dict[str, Any]:
    """The cells of a row as other files have them: a class by its name, a picture as a source.

    Args:
        fields: column -> value, in Python's types.
        names: of classes.
        made: makes the source of a picture from its column, its bytes and its place in a list.
    """
    found = {}
    for column, value in fields.items():
        if column in names and isinstance(value, int):
            found[column] = names[column][value] if 0 <= value < len(names[column]) else None
        elif isinstance(value, list):
            found[column] = [plain_cell(one, partial(made, column), place) for place, one in enumerate(value)]
        else:
            found[column] = plain_cell(value, partial(made, column), -1)
    return found


def plain_cell(value: Any, made: Callable[[bytes, int], ImageSource], place: int) -> Any:
    """A value, or the source of the picture that it is, or the name of the file where that lies.

    Choice: bytes are a text where they are UTF-8 without zeros, as older writers store texts; no picture is.
    """
    content = value.get("bytes") if is_picture(value) else value
    if isinstance(content, bytes):
        text = None if content is not value or b"\0" in content else utf8(content)
        return made(content, place) if text is None else text
    return value["path"] if content is not value else value


def is_picture(value: Any) -> bool:
    """Whether a cell is a picture as `datasets` writes it: its bytes, or the path of a file."""
    return isinstance(value, dict) and (isinstance(value.get("bytes"), bytes) or value.keys() == {"bytes", "path"})


def utf8(content: bytes) -> str | None:
    """Bytes as text; None where they are none."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None
