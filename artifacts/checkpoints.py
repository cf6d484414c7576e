"""Checkpoints that are whole or absent, and whose bytes are known: a CheckpointIO for Lightning.

    last.ckpt             the checkpoint        last.ckpt.json            its size and sha256
    last.ckpt.before      the one before it     last.ckpt.before.json     likewise

A checkpoint's record is written before the file takes its place, and still names the bytes that it replaces: a process
killed between the two leaves a whole checkpoint with a record that knows it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from typing_extensions import override

from artifacts.durable import flush, write_text

Record = dict[str, Any]
"""`size` in bytes and `sha256` of a file."""


class CheckpointError(ValueError):
    """A checkpoint is not what was written."""


class Checkpoints(CheckpointIO):
    """Writes beside the target, flushes and renames; verifies what it reads; keeps the checkpoint before."""

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
                record = _written(checkpoint, file, path)
            flush(aside)
            if path.exists():
                _keep(path)
            _replace(aside, path, [record])
        finally:
            aside.unlink(missing_ok=True)

    @override
    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint whose bytes are those that were written, plain data and tensors only.

        Raises:
            CheckpointError: they are not, or nothing says what was written.
        """
        path = Path(path)
        verify(path)
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)

    @override
    def remove_checkpoint(self, path: Any) -> None:
        path = Path(path)
        for file in (path, before(path)):
            file.unlink(missing_ok=True)
            record_file(file).unlink(missing_ok=True)


def before(path: Path) -> Path:
    """Where the checkpoint before this one stands."""
    return path.with_name(f"{path.name}.before")


def record_file(path: Path) -> Path:
    """Where a checkpoint's size and hash stand."""
    return path.with_name(f"{path.name}.json")


def record_of(path: Path) -> Record:
    """Measure a file."""
    with open(path, "rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def recorded(path: Path) -> list[Record]:
    """What a checkpoint may hold: what was written last, and while that was put in place what stood there before.

    Raises:
        CheckpointError: there is no record, or it is none.
    """
    try:
        found = json.loads(record_file(path).read_text("utf-8"))
        return [{"size": int(item["size"]), "sha256": str(item["sha256"])} for item in found]
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: {record_file(path).name} is missing, which says what {_way_out(path)}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: {record_file(path).name} is damaged, which says what {_way_out(path)}"
        ) from error


def verify(path: Path) -> None:
    """Refuse a checkpoint whose bytes are not those that were written.

    Raises:
        CheckpointError: names the file, and says how to go on.
    """
    if record_of(path) not in recorded(path):
        raise CheckpointError(
            f"{path}: is damaged: its sha256 is not the one in {record_file(path).name} of what {_way_out(path)}"
        )


def _way_out(path: Path) -> str:
    """The end of every refusal."""
    start = f"was written. Delete {path.parent} to start this run anew"
    if not before(path).exists():
        return start
    moves = f"mv {before(path)} {path} && mv {record_file(before(path))} {record_file(path)}"
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
    try:
        _replace(aside, before(path), _known(path))
    finally:
        aside.unlink(missing_ok=True)


def _known(path: Path) -> list[Record]:
    """As `recorded`; nothing where that cannot be read, so that such a file is refused from then on."""
    try:
        return recorded(path)
    except CheckpointError:
        return []


def _replace(aside: Path, path: Path, records: list[Record]) -> None:
    """Put a flushed file in place, with what it may hold."""
    write_text(record_file(path), json.dumps([*records, *_known(path)]) + "\n")
    os.replace(aside, path)
    flush(path.parent)
    write_text(record_file(path), json.dumps(records) + "\n")


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


def _written(checkpoint: dict[str, Any], file: BinaryIO, path: Path) -> Record:
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
    return {"size": measured.size, "sha256": measured.sha256.hexdigest()}
