"""Files of one JSON object per line, each with the `step` that it belongs to; a resumed run writes its steps anew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from artifacts.durable import named, write_text


def append(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Add lines.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with named(path), open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def forget(path: Path, step: int) -> bool:
    """Drop records from a step on, and a line that was cut off; returns whether that very step had a record."""
    if not path.exists():
        return False
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    steps = [json.loads(line)["step"] for line in lines]
    write_text(path, "".join(line for line, at in zip(lines, steps, strict=True) if at < step))
    return step in steps
