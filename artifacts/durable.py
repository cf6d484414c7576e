"""Files that are either whole or absent: write aside, flush to disk, rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def flush(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, onto the disk.

    Raises:
        OSError: the disk is full or gone; names the file.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let an error of the system that names no file, as that of a write, name this one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step, making its folder if need be; on failure the old file, or none, is left.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with named(path):
            aside.write_text(text, encoding="utf-8")
        flush(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    flush(path.parent)


def left_behind(folder: Path) -> list[Path]:
    """What processes that were killed left of a folder beside it: theirs is no process that runs."""
    return [path for path in folder.parent.glob(f".{folder.name}.*") if process_of(path) and not runs(process_of(path))]


def remove_left_behind(folder: Path, *, below: bool = True) -> None:
    """Remove temporary files and folders of processes that were killed; called by who alone works in the folder.

    Those of a process with this one's own number were left by another one too: in containers numbers come again.

    Args:
        folder: where to look.
        below: also in the folders that it holds.
    """
    for path in list(folder.rglob(".*") if below else folder.glob(".*")):
        number = process_of(path)
        if number and (number == os.getpid() or not runs(number)):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def process_of(path: Path) -> int:
    """Number of the process that gave a temporary file its name; 0 of any other file."""
    parts = path.name.split(".")
    temporary = len(parts) > 3 and not parts[0] and parts[-1] in ("tmp", "old")
    return int(parts[-2]) if temporary and parts[-2].isdecimal() and len(parts[-2]) < 19 else 0


def runs(number: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@contextmanager
def folder_in_one_step(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it takes the place of `folder` when the block ends without an error.

    Within the block the caller flushes its own files. When the block raises, what it wrote is removed and an older
    `folder` stays as it was. A process killed between the two renames leaves no `folder` at all, never half of one.

    Args:
        folder: where the finished folder shall stand; its parents are created.

    Yields:
        A folder beside it, on the same disk, so that the rename is atomic.

    Raises:
        OSError: the disk is full or the parent cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    for stale in (aside, old, *left_behind(folder)):
        shutil.rmtree(stale, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        flush(aside)
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(aside, folder)
        except OSError:
            if old.exists():
                os.rename(old, folder)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
    flush(folder.parent)
