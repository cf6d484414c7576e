"""Checkpoints that are whole or absent, and whose bytes are known: a CheckpointIO for Lightning.

last.ckpt             the checkpoint        last.ckpt.manifest.json            its size and sha256
last.ckpt.before      the one before it     last.ckpt.before.manifest.json     likewise
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from typing_extensions import override

from artifacts.durable import flush
from artifacts.folders import LAST
from artifacts.manifest import Entry, beside, known_entries, put, verify_file

UNKNOWN: Entry = {"bytes": 0, "sha256": "unknown"}
"""Of a checkpoint that came without a manifest: it is refused from then on."""


class Checkpoints(CheckpointIO):
    """Writes beside the target, flushes and renames; verifies what it reads; keeps the last checkpoint but one."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replace a checkpoint; on failure the old one stays.

        Raises:
            OSError: the disk is full or the folder cannot be written; names the file.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with open(aside, "wb") as file:
                entry = _written(checkpoint, file, path)
            flush(aside)
            if path.name == LAST and path.exists():  # one that is kept for its score is only ever written again alike
                _keep(path)
            put(aside, path, entry)
        finally:
            aside.unlink(missing_ok=True)

    @override
    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint whose bytes are those that were written, plain data and tensors only.

        Raises:
            DamagedError: they are not, or nothing says what was written.
        """
        path = Path(path)
        verify_file(path, _way_out(path))
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)

    @override
    def remove_checkpoint(self, path: Any) -> None:
        path = Path(path)
        for file in (path, before(path)):
            file.unlink(missing_ok=True)
            beside(file).unlink(missing_ok=True)


def before(path: Path) -> Path:
    """Where the checkpoint before this one stands."""
    return path.with_name(f"{path.name}.before")


def _way_out(path: Path) -> str:
    """The end of every refusal."""
    start = f"delete {path.parent} to start this run anew"
    if not before(path).exists():
        return start
    moves = f"mv {before(path)} {path} && mv {beside(before(path))} {beside(path)}"
    return f"{start}, or go on from the checkpoint before it: {moves}"


def _keep(path: Path) -> None:
    """Let the checkpoint that is about to be replaced stand beside its successor, with the record that it has."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    aside.unlink(missing_ok=True)
    try:
        os.link(path, aside)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, aside)
        flush(aside)
    known, *others = known_entries(path) or [UNKNOWN]
    try:
        put(aside, before(path), known | ({"replaces": others} if others else {}))
    finally:
        aside.unlink(missing_ok=True)


class _Measured:
    """A file that is hashed while it is written, and remembers why a write failed: torch says only that one did."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha256, self.size = file, hashlib.sha256(), 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sha256.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def _written(checkpoint: dict[str, Any], file: BinaryIO, path: Path) -> Entry:
    """Write a checkpoint; what goes wrong is told with the name of the file that it was meant for."""
    measured = _Measured(file)
    try:
        torch.save(checkpoint, measured)
        measured.flush()
    except Exception as error:
        cause = measured.error or (error if isinstance(error, OSError) else None)
        if cause is None:
            raise
        raise OSError(cause.errno, f"{cause.strerror}; the checkpoint before it stands", str(path)) from error
    return {"bytes": measured.size, "sha256": measured.sha256.hexdigest()}
