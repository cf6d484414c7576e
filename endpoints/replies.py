"""Replies on disk, one file per request, under the hash of what was asked: nothing is ever asked twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from artifacts.durable import write_text

FORMAT = "reply/1"


class Replies:
    """A folder of replies as they came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """The file of a reply; keys are hexadecimal, so no path leaves the folder."""
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> tuple[int, bytes] | None:
        """(status, body) of a reply; None where none is kept, or the file is not what was written."""
        try:
            content = json.loads(self.path(key).read_text(encoding="utf-8"))
            status, body = int(content["status"]), content["body"].encode("utf-8", "surrogateescape")
            whole = content["format"] == FORMAT and hashlib.sha256(body).hexdigest() == content["sha256"]
        except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
            return None
        return (status, body) if whole else None

    def asked(self, key: str) -> dict[str, Any]:
        """Who was asked what, of a reply that `get` finds."""
        return json.loads(self.path(key).read_text(encoding="utf-8"))["asked"]

    def held(self, key: str) -> tuple[int, bytes]:
        """A reply that is known to be kept.

        Raises:
            OSError: it is gone, or damaged, since.
        """
        known = self.get(key)
        if known is None:
            raise OSError(f"{self.path(key)}: was there a moment ago; does something else clear this folder?")
        return known

    def put(self, key: str, status: int, body: bytes, asked: dict[str, Any]) -> None:
        """Keep a reply, whole or not at all.

        Args:
            key: hexadecimal.
            status: HTTP's.
            body: any bytes.
            asked: for readers of the file: who was asked what.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        content = {
            "format": FORMAT,
            "status": status,
            "sha256": hashlib.sha256(body).hexdigest(),
            "asked": asked,
            "body": body.decode("utf-8", "surrogateescape"),
        }
        write_text(self.path(key), json.dumps(content, indent=1) + "\n")
