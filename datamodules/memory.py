"""What was found out about files, kept in a folder: another process does not look again where nothing changed.

A key is a hash of everything that the finding follows from: rows, settings, the files' sizes and times, and the code. A
finding that cannot be read back, or not whole, is made again; one that cannot be written is made again next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import PIL

SETTLED = 1.0
"""Seconds for which a file must have been left alone: one written within a tick of the clock may change unseen."""


def key_of(parts: Iterable[bytes]) -> str:
    """A key out of all that a finding follows from; the code counts too."""
    digest = hashlib.sha256(code())
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


@cache
def code() -> bytes:
    """Hash of this package's sources and of the version that decodes pictures."""
    digest = hashlib.sha256(PIL.__version__.encode())
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.digest()


def stamp(path: Path) -> tuple[bytes, float]:
    """What tells that a file is still the same without reading it, and when it was last written or replaced.

    Raises:
        OSError: it is not there.
    """
    found = os.stat(path)
    told = (str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return repr(told).encode("utf-8", "surrogateescape"), found.st_ctime_ns / 1e9


def recall(folder: Path | None, key: str) -> Any:
    """What was remembered under a key; None where nothing was, or where it is not whole."""
    if folder is None:
        return None
    try:
        held = json.loads((folder / f"{key}.json").read_bytes())
        return held["found"] if held["sha256"] == checksum(key, held["found"]) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def remember(folder: Path | None, key: str, found: Any, changed: float = 0.0) -> None:
    """Keep a finding.

    Args:
        folder: None keeps nothing.
        key: of `key_of`.
        found: what JSON can hold, and not None.
        changed: when the last of the files was written, in seconds; a finding about fresh ones is not kept.
    """
    if folder is None or time.time() - changed < SETTLED:
        return
    aside = folder / f".{uuid.uuid4().hex}"
    with contextlib.suppress(OSError):  # a full or read-only disk costs time and no result
        folder.mkdir(exist_ok=True)  # beside the runs, once there are any
        try:
            aside.write_text(json.dumps({"found": found, "sha256": checksum(key, found)}), encoding="utf-8")
            os.replace(aside, folder / f"{key}.json")
        finally:
            aside.unlink(missing_ok=True)


def checksum(key: str, found: Any) -> str:
    """Of a finding under its key."""
    return hashlib.sha256(f"{key}\n{json.dumps(found, sort_keys=True)}".encode()).hexdigest()
